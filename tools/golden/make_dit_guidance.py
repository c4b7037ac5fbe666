#!/usr/bin/env python3
"""Writes a reference file for a transformer with a guidance embedding: tests/goldens/dit_patch_guidance.safetensors.
Needs torch, diffusers and safetensors; weights and inputs are random from a fixed seed."""
import json
import sys

import torch
from diffusers import SanaVideoTransformer3DModel
from safetensors.torch import save_file

torch.manual_seed(7)
config = dict(in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=16, num_layers=2, num_cross_attention_heads=2,
              cross_attention_head_dim=16, cross_attention_dim=32, caption_channels=12, mlp_ratio=3.0, sample_size=30,
              patch_size=(1, 2, 2), qk_norm="rms_norm_across_heads", rope_max_seq_len=64, guidance_embeds=True)
model = SanaVideoTransformer3DModel(**config).eval()
with torch.no_grad():
    for parameter in model.parameters():
        parameter.normal_(0, 0.2)
inputs = {"in.latents": torch.randn(2, 4, 3, 6, 8), "in.text": torch.randn(2, 6, 12), "in.text_mask": torch.tensor([[1.0] * 6, [1.0] * 4 + [0.0] * 2]),
          "in.timestep": torch.tensor([700.0, 300.0]), "in.guidance": torch.tensor([4.5, 6.0])}
blocks = []
for block in model.transformer_blocks:
    block.register_forward_hook(lambda module, args, output: blocks.append(output))
with torch.no_grad():
    sample = model(inputs["in.latents"], encoder_hidden_states=inputs["in.text"], timestep=inputs["in.timestep"], guidance=inputs["in.guidance"],
                   encoder_attention_mask=inputs["in.text_mask"], return_dict=False)[0]
tensors = {"w." + k: v for k, v in model.state_dict().items()} | inputs | {"out.sample": sample}
tensors |= {f"out.block{i}": b for i, b in enumerate(blocks)}
save_file({k: v.contiguous() for k, v in tensors.items()}, sys.argv[1] if len(sys.argv) > 1 else "tests/goldens/dit_patch_guidance.safetensors",
          {"config": json.dumps(config | {"patch_size": [1, 2, 2]})})
