#!/usr/bin/env python3
"""The GPU parts of sana beside diffusers and transformers on torch: same shapes, random weights, one run on one card.

    python bench/peers/gpu_torch.py [--sana build/cuda/bin/sana] [--seconds 5] [--only dit-480p] [--no-compile] [--out FILE]

Needs torch with CUDA and diffusers; the text encoder also transformers. A part whose library is missing is left out and
named. Every part is timed eager and compiled, then sana times the same part; the mean of runs without a pause counts.
A ratio below 1 means that sana is faster."""
import argparse
import gc
import json
import subprocess
import time

import torch

BF16 = dict(dtype=torch.bfloat16, device="cuda")


def random_weights(model):
    torch.manual_seed(0)
    for p in model.parameters():
        if p.dim() > 1:
            p.data.normal_(0, 1 / max(1, p[0].numel()) ** 0.5)
    return model.to("cuda", torch.bfloat16).eval()


def dit(channels, patch, latents):
    from diffusers import SanaVideoTransformer3DModel

    with torch.device("cuda"):
        model = SanaVideoTransformer3DModel(in_channels=channels, out_channels=channels, mlp_ratio=3.0, patch_size=patch)
    x, text = torch.randn(latents, **BF16), torch.randn(2, 300, 2304, **BF16)
    t = torch.tensor([500, 500], device="cuda")
    return random_weights(model), lambda m: m(x, encoder_hidden_states=text, timestep=t, return_dict=False)


def text():
    from transformers import Gemma2Config, Gemma2Model

    with torch.device("cuda"):
        model = Gemma2Model(Gemma2Config(vocab_size=256000, hidden_size=2304, intermediate_size=9216, num_hidden_layers=26,
                                         num_attention_heads=8, num_key_value_heads=4, head_dim=256,
                                         query_pre_attn_scalar=256, attn_implementation="eager"))
    ids = [torch.arange(n, device="cuda")[None] for n in (519, 300)]
    return random_weights(model), lambda m: [m(i, use_cache=False) for i in ids]


def wan_vae():
    from diffusers import AutoencoderKLWan

    with torch.device("cuda"):
        model = AutoencoderKLWan()
    z = torch.randn(1, 16, 21, 60, 104, **BF16)
    model = random_weights(model)
    return model, lambda m: m.decode(z, return_dict=False)


def ltx2_vae():
    from diffusers import AutoencoderKLLTX2Video

    with torch.device("cuda"):
        model = AutoencoderKLLTX2Video()
    z = torch.randn(1, 128, 11, 22, 40, **BF16)
    return random_weights(model), lambda m: m.decode(z, return_dict=False)


PARTS = {
    "dit-480p": (lambda: dit(16, (1, 2, 2), (2, 16, 21, 60, 104)), ["dit"]),
    "dit-720p": (lambda: dit(128, (1, 1, 1), (2, 128, 11, 22, 40)), ["dit", "--preset", "sana-video-2b-720p"]),
    "text": (text, ["text", "--lengths", "519", "300"]),
    "vae-wan": (wan_vae, ["vae"]),
    "vae-ltx2": (ltx2_vae, ["vae", "--preset", "sana-video-2b-720p"]),
}


def mean_time(body, seconds):
    with torch.inference_mode():
        start = time.perf_counter()
        body()
        torch.cuda.synchronize()
        cold = time.perf_counter() - start
        torch.cuda.reset_peak_memory_stats()
        runs, start = 0, time.perf_counter()
        while runs < 3 or time.perf_counter() - start < seconds:
            body()
            torch.cuda.synchronize()
            runs += 1
        return {"mean_s": (time.perf_counter() - start) / runs, "runs": runs, "cold_s": cold,
                "peak_bytes": torch.cuda.max_memory_allocated()}


def peer(build, seconds, compiled):
    model, call = build()
    out = {"eager": mean_time(lambda: call(model), seconds)}
    if compiled:
        # A decoder is entered through decode(); its parts are what is worth compiling.
        target = model.decoder if hasattr(model, "decoder") else model
        target.forward = torch.compile(target.forward)
        out["compiled"] = mean_time(lambda: call(model), seconds)
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--sana", default="build/cuda/bin/sana")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--out")
    args = parser.parse_args()
    results = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "parts": {}}
    print(f"{results['gpu']}, torch {torch.__version__}, bf16, random weights; ms, mean of at least {args.seconds} s")
    print(f"{'part':10} {'eager':>9} {'compiled':>9} {'sana':>9} {'ratio':>6}")
    for name, (build, command) in PARTS.items():
        if args.only and name != args.only:
            continue
        try:
            result = peer(build, args.seconds, not args.no_compile)
        except ImportError as error:
            print(f"{name:10} left out: {error}")
            continue
        gc.collect()
        torch.cuda.empty_cache()
        lines = subprocess.run([args.sana, "--json", "bench", *command, "--device", "cuda", "--precision", "bf16",
                                "--seconds", str(args.seconds)], capture_output=True, text=True, check=True).stdout
        result["sana"] = json.loads(lines.splitlines()[-1])
        results["parts"][name] = result
        best = min(r["mean_s"] for key, r in result.items() if key != "sana")
        row = [result[k]["mean_s"] * 1e3 if k in result else float("nan") for k in ("eager", "compiled", "sana")]
        print(f"{name:10} {row[0]:9.1f} {row[1]:9.1f} {row[2]:9.1f} {result['sana']['mean_s'] / best:6.2f}", flush=True)
    if args.out:
        with open(args.out, "w") as file:
            json.dump(results, file, indent=2)


if __name__ == "__main__":
    main()
