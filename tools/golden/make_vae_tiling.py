#!/usr/bin/env python3
"""Writes reference files for encoding and decoding in spatial tiles: tests/goldens/vae_tiling_{wan,ltx2}.safetensors. The LTX-2
one also differs from level to level and is not causal in either half.
Needs torch, diffusers and safetensors; weights and inputs are random from a fixed seed. The metadata holds the autoencoder's
config and the tiling in pixels."""
import json
import sys

import torch
from diffusers import AutoencoderKLLTX2Video, AutoencoderKLWan
from safetensors.torch import save_file


def write(path, model, config, tile, stride, frames, height, width):
    model.eval()
    for name, parameter in model.named_parameters():
        if name.endswith("gamma"):
            parameter.uniform_(0.5, 1.5)
    video = torch.randn(1, 3, frames, height, width).clamp(-1, 1)
    model.enable_tiling(tile_sample_min_height=tile, tile_sample_min_width=tile, tile_sample_stride_height=stride,
                        tile_sample_stride_width=stride)
    posterior = model.encode(video).latent_dist
    latents = torch.randn_like(posterior.mean)
    tensors = {"w." + k: v for k, v in model.state_dict().items()}
    tensors |= {"in.video": video, "in.latents": latents, "out.mean": posterior.mean, "out.logvar": posterior.logvar,
                "out.video": model.decode(latents).sample}
    save_file({k: v.contiguous() for k, v in tensors.items()}, path,
              {"config": json.dumps(config), "tile": str(tile), "stride": str(stride)})


folder = sys.argv[1] if len(sys.argv) > 1 else "tests/goldens"
with torch.no_grad():
    torch.manual_seed(11)
    wan = dict(base_dim=4, z_dim=4, dim_mult=[1, 2, 2, 2], num_res_blocks=1, temperal_downsample=[False, True, True],
               latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    write(f"{folder}/vae_tiling_wan.safetensors", AutoencoderKLWan(**wan), wan, 32, 24, 5, 48, 56)
    ltx2 = dict(latent_channels=8, block_out_channels=[8, 16], down_block_types=["LTX2VideoDownBlock3D"] * 2,
                decoder_block_out_channels=[8, 16], layers_per_block=[1, 2, 1], decoder_layers_per_block=[2, 1, 1],
                spatio_temporal_scaling=[True] * 2, decoder_spatio_temporal_scaling=[True] * 2,
                decoder_inject_noise=[False] * 3, downsample_type=["spatiotemporal", "spatial"],
                upsample_type=["spatial", "spatiotemporal"],
                upsample_residual=[False, True], upsample_factor=[1, 2], patch_size=2, encoder_causal=False, decoder_causal=False,
                spatial_compression_ratio=8, temporal_compression_ratio=2)
    write(f"{folder}/vae_tiling_ltx2.safetensors", AutoencoderKLLTX2Video(**ltx2), ltx2, 24, 16, 9, 32, 48)
