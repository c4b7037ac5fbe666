#!/usr/bin/env python3
"""The CPU parts of sana beside diffusers and transformers on torch: same shapes, fp32, same threads, one run.

    python bench/peers/cpu_torch.py [--sana build/release/bin/sana] [--threads 2] [--repeats 3] [--only dit]

Needs torch, diffusers, transformers. The two programs take turns, so that both see the same machine; the fastest of the
repeats counts. A ratio below 1 means that sana is faster."""
import argparse
import json
import subprocess
import time

import torch


def time_once(body):
    start = time.perf_counter()
    with torch.inference_mode():
        body()
    return time.perf_counter() - start


def dit():
    from diffusers import SanaVideoTransformer3DModel

    model = SanaVideoTransformer3DModel(num_layers=1, mlp_ratio=3.0).eval()
    latents, text = torch.randn(1, 16, 16, 32, 32), torch.randn(1, 300, 2304)
    t = torch.tensor([500])
    return lambda: model(latents, encoder_hidden_states=text, timestep=t)


def text():
    from transformers import Gemma2Config, Gemma2Model

    config = Gemma2Config(vocab_size=1024, hidden_size=2304, intermediate_size=9216, num_hidden_layers=4, num_attention_heads=8,
                          num_key_value_heads=4, head_dim=256, query_pre_attn_scalar=256, attn_implementation="eager")
    model = Gemma2Model(config).eval()
    ids = torch.arange(300)[None]
    return lambda: model(ids, use_cache=False)


def vae():
    from diffusers import AutoencoderKLWan

    model = AutoencoderKLWan().eval()
    latents = torch.randn(1, 16, 3, 32, 32)
    return lambda: model.decode(latents)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sana", default="build/release/bin/sana")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.threads} threads, fp32, fastest of {args.repeats}")
    sizes = {"dit": ["--layers", "1", "--batch", "1", "--width", "256", "--height", "256", "--frames", "61"],
             "text": ["--layers", "4", "--lengths", "300"],
             "vae": ["--width", "256", "--height", "256", "--frames", "9"]}
    print(f"{'part':12} {'sana s':>9} {'torch s':>9} {'ratio':>7}   sana GFLOP/s")
    for name, build in (("dit", dit), ("text", text), ("vae", vae)):
        if args.only and name != args.only:
            continue
        peer, ours, theirs = build(), [], []
        time_once(peer)
        for _ in range(args.repeats):
            line = subprocess.run([args.sana, "--json", "bench", name, "--device", "cpu", "--precision", "fp32",
                                   "--threads", str(args.threads), "--repeats", "1", *sizes[name]],
                                  capture_output=True, text=True, check=True).stdout
            ours.append(json.loads(line.splitlines()[-1]))
            theirs.append(time_once(peer))
        best = min(ours, key=lambda r: r["min_s"])
        print(f"{name:12} {best['min_s']:9.3f} {min(theirs):9.3f} {best['min_s'] / min(theirs):7.2f}   {best['tflop_per_s'] * 1e3:.0f}", flush=True)
        del peer


if __name__ == "__main__":
    main()
