#include <set>

#include "models/dit/dit.h"

namespace sana {

bool looks_official(const TensorMap& tensors) {
    return tensors.count("x_embedder.proj.weight") != 0 && tensors.count("final_layer.linear.weight") != 0;
}

DiTConfig infer_dit_config(const TensorMap& tensors, int64_t head_dim, const std::string& source) {
    auto shape = [&](const std::string& key, int rank) {
        auto it = tensors.find(key);
        check_input(it != tensors.end() && it->second.rank() == rank, source, ": has no ", key, " of ",
                    int64_t{rank},
                    " dimensions; this is not a SANA-Video transformer in the official layout");
        return it->second.shape();
    };
    Shape embed = shape("x_embedder.proj.weight", 5), head = shape("final_layer.linear.weight", 2);
    Shape caption = shape("y_embedder.y_proj.fc1.weight", 2),
          inverted = shape("blocks.0.mlp.inverted_conv.conv.weight", 4);
    int64_t width = embed[0];
    check_input(width > 0 && width % head_dim == 0, source, ": a width of ", width,
                " is not a multiple of the head width ", head_dim,
                "; give the transformer's config.json with --config");
    std::set<std::string> blocks;
    for (const auto& [key, tensor] : tensors) {
        if (key.starts_with("blocks.")) blocks.insert(key.substr(7, key.find('.', 7) - 7));
    }
    DiTConfig c;
    c.in_channels = embed[1];
    c.patch = {embed[2], embed[3], embed[4]};
    c.out_channels = head[0] / c.patch_volume();
    c.heads = c.cross_heads = width / head_dim;
    c.head_dim = c.cross_head_dim = head_dim;
    c.layers = static_cast<int64_t>(blocks.size());
    c.caption_channels = caption[1];
    c.mlp_ratio = static_cast<double>(inverted[0]) / 2 / static_cast<double>(width);
    c.attention_bias = tensors.count("blocks.0.attn.qkv.bias") != 0;
    c.sample_size = c.patch_volume() == 1 ? 22 : 30;
    return c;
}

}  // namespace sana
