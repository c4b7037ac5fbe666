#include "models/dit/dit.h"

namespace sana {

CheckpointNames dit_diffusers_names(const DiTConfig& config) {
    CheckpointNames names;
    names.format = "diffusers";
    names.rules = {
        {"patch_embed", "patch_embedding"},
        {"modulation", "time_embed.linear"},
        {"caption_in", "caption_projection.linear_1"},
        {"caption_out", "caption_projection.linear_2"},
        {"blocks.*.modulation", "transformer_blocks.*.scale_shift_table"},
        {"blocks.*.attention.qkv",
         "transformer_blocks.*.attn1.to_q|transformer_blocks.*.attn1.to_k|transformer_blocks.*.attn1.to_v"},
        {"blocks.*.attention.q_norm", "transformer_blocks.*.attn1.norm_q"},
        {"blocks.*.attention.k_norm", "transformer_blocks.*.attn1.norm_k"},
        {"blocks.*.attention.out", "transformer_blocks.*.attn1.to_out.0"},
        {"blocks.*.cross.q", "transformer_blocks.*.attn2.to_q"},
        {"blocks.*.cross.kv", "transformer_blocks.*.attn2.to_k|transformer_blocks.*.attn2.to_v"},
        {"blocks.*.cross.q_norm", "transformer_blocks.*.attn2.norm_q"},
        {"blocks.*.cross.k_norm", "transformer_blocks.*.attn2.norm_k"},
        {"blocks.*.cross.out", "transformer_blocks.*.attn2.to_out.0"},
        {"blocks.*.ffn.inverted", "transformer_blocks.*.ff.conv_inverted"},
        {"blocks.*.ffn.depth", "transformer_blocks.*.ff.conv_depth"},
        {"blocks.*.ffn.point", "transformer_blocks.*.ff.conv_point"},
        {"blocks.*.ffn.temporal", "transformer_blocks.*.ff.conv_temp"},
        {"head_modulation", "scale_shift_table"},
        {"head", "proj_out"},
    };
    if (config.guidance_embeds) {
        names.rules.insert(names.rules.end(), {
                                                  {"time_in", "time_embed.timestep_embedder.linear_1"},
                                                  {"time_out", "time_embed.timestep_embedder.linear_2"},
                                                  {"guidance_in", "time_embed.guidance_embedder.linear_1"},
                                                  {"guidance_out", "time_embed.guidance_embedder.linear_2"},
                                              });
    } else {
        names.rules.insert(names.rules.end(), {
                                                  {"time_in", "time_embed.emb.timestep_embedder.linear_1"},
                                                  {"time_out", "time_embed.emb.timestep_embedder.linear_2"},
                                              });
    }
    return names;
}

CheckpointNames dit_official_names() {
    CheckpointNames names;
    names.format = "official";
    names.rules = {
        {"patch_embed", "x_embedder.proj"},
        {"time_in", "t_embedder.mlp.0"},
        {"time_out", "t_embedder.mlp.2"},
        {"modulation", "t_block.1"},
        {"caption_in", "y_embedder.y_proj.fc1"},
        {"caption_out", "y_embedder.y_proj.fc2"},
        {"caption_norm", "attention_y_norm"},
        {"blocks.*.modulation", "blocks.*.scale_shift_table"},
        {"blocks.*.attention.qkv", "blocks.*.attn.qkv"},
        {"blocks.*.attention.q_norm", "blocks.*.attn.q_norm"},
        {"blocks.*.attention.k_norm", "blocks.*.attn.k_norm"},
        {"blocks.*.attention.out", "blocks.*.attn.proj"},
        {"blocks.*.cross.q", "blocks.*.cross_attn.q_linear"},
        {"blocks.*.cross.kv", "blocks.*.cross_attn.kv_linear"},
        {"blocks.*.cross.q_norm", "blocks.*.cross_attn.q_norm"},
        {"blocks.*.cross.k_norm", "blocks.*.cross_attn.k_norm"},
        {"blocks.*.cross.out", "blocks.*.cross_attn.proj"},
        {"blocks.*.ffn.inverted", "blocks.*.mlp.inverted_conv.conv"},
        {"blocks.*.ffn.depth", "blocks.*.mlp.depth_conv.conv"},
        {"blocks.*.ffn.point", "blocks.*.mlp.point_conv.conv"},
        {"blocks.*.ffn.temporal", "blocks.*.mlp.t_conv"},
        {"head_modulation", "final_layer.scale_shift_table"},
        {"head", "final_layer.linear"},
    };
    names.ignored = {"y_embedder.y_embedding", "pos_embed", "logvar_linear"};
    return names;
}

}  // namespace sana
