#!/usr/bin/env python3
"""LoRA files of sana and of diffusers with PEFT, both ways: a file must mean the same in both programs.

    python bench/peers/lora_diffusers.py [--sana build/release/bin/sana] [--steps 60]

With a small random model made by sana (sana init --preset tiny --random), from prompt to latents in both programs (fp32 on
the CPU, the same noise, DPM-Solver with guidance):
  1. a LoRA that `sana train` has trained, by diffusers' load_lora_weights, against `sana generate --lora FILE:0.8`;
  2. a LoRA made by PEFT and saved by diffusers, also in kohya's and in ComfyUI's names and half from each of two files;
  3. both merged by `sana convert --lora` into a transformer that diffusers runs without PEFT.
Prints relative L2 differences of the latents and ends with 1 above the bound. Needs torch, diffusers, transformers, peft."""
import argparse
import pathlib
import subprocess
import sys
import tempfile

import torch
from diffusers import AutoencoderKLWan, DPMSolverMultistepScheduler, SanaVideoPipeline, SanaVideoTransformer3DModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import Gemma2Model, PreTrainedTokenizerFast

BOUND = 1e-5  # fp32 sums in two orders over four steps; without any LoRA the two programs differ by 1e-6
PROMPT = "a small red circle moves left over a blue background"
SIZE, FRAMES, STEPS, GUIDANCE, SEED, WEIGHT = 64, 9, 4, 4.0, 7, 0.8
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "linear_1", "conv_point"]


def relative(a, b):
    return ((a - b).norm() / b.norm()).item()


class Programs:
    def __init__(self, sana, folder):
        self.sana, self.folder, self.model = sana, folder, folder / "model"
        self.run("init", "--preset", "tiny", "--random", "--out", self.model)

    def run(self, *words):
        subprocess.run([self.sana, "--quiet", *map(str, words)], check=True, stdout=subprocess.DEVNULL)

    def transformer(self, path=None):
        path = path or self.model / "transformer"
        return SanaVideoTransformer3DModel.from_pretrained(path, torch_dtype=torch.float32).eval()

    def pipeline(self, transformer=None):
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(self.model / "tokenizer" / "tokenizer.json"),
                                            pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>")
        return SanaVideoPipeline(
            tokenizer=tokenizer,
            text_encoder=Gemma2Model.from_pretrained(self.model / "text_encoder", dtype=torch.float32, attn_implementation="eager").eval(),
            vae=AutoencoderKLWan.from_pretrained(self.model / "vae").eval(),
            transformer=transformer or self.transformer(),
            scheduler=DPMSolverMultistepScheduler.from_pretrained(self.model / "scheduler"))

    def theirs(self, pipeline):
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(prompt=PROMPT, negative_prompt="", height=SIZE, width=SIZE, frames=FRAMES, num_inference_steps=STEPS,
                        guidance_scale=GUIDANCE, generator=torch.Generator().manual_seed(SEED), complex_human_instruction=None,
                        use_resolution_binning=False, output_type="latent").frames

    def ours(self, *loras):
        out = self.folder / "ours.y4m"
        self.run("generate", "--model", self.model, "--prompt", PROMPT, "--width", SIZE, "--height", SIZE, "--frames", FRAMES,
                 "--steps", STEPS, "--guidance", GUIDANCE, "--seed", SEED, "--rng", "torch", "--device", "cpu", "--keep-latents",
                 "--out", out, *[w for lora in loras for w in ("--lora", lora)])
        return load_file(f"{out}.latents.safetensors")["latents"]

    def trained(self, steps):
        out = self.folder / "run"
        self.run("train", "--stage", "dit", "--model", self.model, "--out", out, "--device", "cpu", "--width", 64, "--height", 48,
                 "--frames", 5, "--batch", 2, "--steps", steps, "--warmup", 5, "--rate", "5e-3", "--clip", 1, "--lora-rank", 4,
                 "--lora-alpha", 6, "--hold-out-batches", 0,
                 "--lora-layers", "blocks.*.attention.*,blocks.*.cross.*,blocks.*.ffn.point,caption_in")
        return out / "model" / "pytorch_lora_weights.safetensors"

    def from_peft(self):
        model = self.transformer()
        model.add_adapter(LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS, init_lora_weights=False), adapter_name="default")
        SanaVideoPipeline.save_lora_weights(self.folder / "peft",
                                            transformer_lora_layers=get_peft_model_state_dict(model, adapter_name="default"),
                                            transformer_lora_adapter_metadata=model.peft_config["default"].to_dict())
        return self.folder / "peft" / "pytorch_lora_weights.safetensors"

    def with_lora(self, file):
        pipeline = self.pipeline()
        pipeline.load_lora_weights(file.parent, weight_name=file.name, adapter_name="one")
        pipeline.set_adapters(["one"], [WEIGHT])
        return self.theirs(pipeline)

    def merged(self, name, file):
        self.run("convert", self.model / "transformer", self.folder / name, "--lora", f"{file}:{WEIGHT}")
        return self.theirs(self.pipeline(self.transformer(self.folder / name)))


def other_names(file, folder):
    """The same LoRA as kohya's scripts and as ComfyUI would have it."""
    tensors = {key.removeprefix("transformer."): value.contiguous() for key, value in load_file(file).items()}
    kohya, comfy = {}, {}
    for path in sorted({key.rsplit(".lora_", 1)[0] for key in tensors}):
        a, b, alpha = tensors[path + ".lora_A.weight"], tensors[path + ".lora_B.weight"], torch.tensor(6.0)
        flat, full = "lora_unet_" + path.replace(".", "_"), "diffusion_model." + path
        kohya |= {flat + ".lora_down.weight": a, flat + ".lora_up.weight": b, flat + ".alpha": alpha}
        comfy |= {full + ".lora_A.weight": a, full + ".lora_B.weight": b, full + ".alpha": alpha.clone()}
    save_file(kohya, folder / "kohya.safetensors")
    save_file(comfy, folder / "comfy.safetensors")
    return folder / "kohya.safetensors", folder / "comfy.safetensors"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sana", default="build/release/bin/sana")
    parser.add_argument("--steps", type=int, default=60, help="training steps of the LoRA")
    args = parser.parse_args()
    torch.manual_seed(0)
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="sana_lora_") as folder:
        programs = Programs(args.sana, pathlib.Path(folder))
        plain = programs.theirs(programs.pipeline())

        def row(name, got, want):
            nonlocal worst
            difference, effect = relative(got, want), relative(want, plain)
            worst = max(worst, difference)
            print(f"{name:58s} difference {difference:.1e}   effect of the LoRA {effect:.3f}", flush=True)
            assert want is plain or effect > 0.01, "a LoRA without effect shows nothing"

        row("no LoRA", programs.ours(), plain)
        trained, peft = programs.trained(args.steps), programs.from_peft()
        want = programs.with_lora(trained)
        row("trained by sana, in diffusers and in sana", programs.ours(f"{trained}:{WEIGHT}"), want)
        row("trained by sana, merged by sana, in diffusers", programs.merged("merged-1", trained), want)
        want = programs.with_lora(peft)
        kohya, comfy = other_names(peft, programs.folder)
        row("made by PEFT, in diffusers and in sana", programs.ours(f"{peft}:{WEIGHT}"), want)
        row("  in kohya's names", programs.ours(f"{kohya}:{WEIGHT}"), want)
        row("  in ComfyUI's names", programs.ours(f"{comfy}:{WEIGHT}"), want)
        row("  half from each of two files", programs.ours(f"{peft}:{WEIGHT / 2}", f"{comfy}:{WEIGHT / 2}"), want)
        row("made by PEFT, merged by sana, in diffusers", programs.merged("merged-2", peft), want)
    print(f"worst difference {worst:.1e}, bound {BOUND:.0e}")
    return 0 if worst <= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
