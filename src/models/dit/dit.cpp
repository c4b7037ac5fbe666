#include "models/dit/dit.h"

#include <algorithm>

#include "core/scope.h"
#include "models/dit/conditions.h"
#include "ops/embed.h"
#include "ops/layout.h"
#include "ops/tape.h"

namespace sana {

namespace {

constexpr int64_t kSinusoid = 256;

}  // namespace

DiT::DiT(const DiTConfig& config) : config_(config) {
    int64_t width = config.width(), volume = config.patch_volume();
    patch_embed = Linear(config.in_channels * volume, width);
    // Stored as a 3-D convolution; here the channels of a patch run (frame, row, column, channel).
    patch_embed.weight.stored = {width, config.in_channels, config.patch[0], config.patch[1],
                                 config.patch[2]};
    patch_embed.weight.axes = {0, 2, 3, 4, 1};
    time_in = Linear(kSinusoid, width);
    time_out = Linear(width, width);
    if (config.guidance_embeds) {
        guidance_in = Linear(kSinusoid, width);
        guidance_out = Linear(width, width);
    }
    modulation = Linear(width, 6 * width);
    caption_in = Linear(config.caption_channels, width);
    caption_out = Linear(width, width);
    caption_norm = RmsNorm(width, {.eps = 1e-5f});
    for (int64_t i = 0; i < config.layers; ++i) blocks.emplace_back(config);
    head_modulation = same_layout({2, width}, {.std = 1 / std::sqrt(static_cast<double>(width))});
    head = Linear(width, config.out_channels * volume);
}

Fp8Rule dit_fp8_rule() {
    // Not cross.kv, which a prompt needs once, nor the few rows of times and texts, nor what meets the latents. cross.out is
    // kept, as no gate stands between its error and the residual stream (docs/performance.md).
    return {.layers = {"blocks.*.attention.qkv", "blocks.*.attention.out", "blocks.*.cross.q",
                       "blocks.*.cross.out", "blocks.*.ffn.inverted", "blocks.*.ffn.point",
                       "blocks.*.ffn.temporal"},
            .keep = {"blocks.*.cross.out"}};
}

TextContext DiT::prepare_text(const Tensor& states, const Tensor& mask) const {
    Scope scope("dit");
    check_input(states.rank() == 3 && states.cols() == config_.caption_channels, "text states ", states,
                " do not fit the transformer's caption_channels of ", config_.caption_channels,
                "; text encoder and transformer do not belong together");
    Tensor y =
        caption_out.forward(caption_in.forward(states.to(dtype()), {.activation = Activation::gelu_tanh}));
    y = caption_norm.forward(y);
    capture("text", y);
    TextContext context;
    context.mask = mask;
    for (size_t i = 0; i < blocks.size(); ++i) {
        if (execution.before_block) execution.before_block(i);
        context.keys_values.push_back(blocks[i].cross.keys_values(y));
    }
    return context;
}

void DiT::check_inputs(const Tensor& latents, const Tensor& timesteps, const TextContext& text,
                       const Tensor& guidance, const DiTStream* stream) const {
    check_input(latents.rank() == 5 && latents.cols() == config_.in_channels, "latents ", latents,
                " do not fit the transformer's in_channels of ", config_.in_channels);
    const auto& p = config_.patch;
    check_input(latents.numel() > 0 && latents.dim(1) % p[0] == 0 && latents.dim(2) % p[1] == 0 &&
                    latents.dim(3) % p[2] == 0,
                "latents ", latents, ": frames, height and width must be multiples of the patch ",
                Shape{p[0], p[1], p[2]});
    int64_t start = stream == nullptr ? 0 : stream->frames;
    int64_t longest = std::max({start + latents.dim(1) / p[0], latents.dim(2) / p[1], latents.dim(3) / p[2]});
    check_input(longest <= config_.rope_max_seq_len, "a grid side of ", longest, " tokens is more than the ",
                config_.rope_max_seq_len,
                " positions of this model (rope_max_seq_len); choose a smaller size or fewer frames");
    int64_t batch = latents.dim(0), frames = latents.dim(1) / p[0];
    check(timesteps.dim(0) == batch &&
              (timesteps.rank() == 1 || (timesteps.rank() == 2 && timesteps.dim(1) == frames)),
          "timesteps ", timesteps, " for latents ", latents);
    check(text.keys_values.size() == blocks.size() && text.samples() > 0 && text.samples() % batch == 0,
          "a text context of ", text.keys_values.size(), " blocks and ", text.samples(), " samples for ",
          latents);
    check(stream == nullptr || text.samples() == batch, "a stream has a sample for every text");
    check(guidance.defined() == config_.guidance_embeds, "a guidance tensor is ",
          config_.guidance_embeds ? "needed by" : "unknown to", " this model");
}

Grid DiT::grid_of(const Shape& latents) const {
    const auto& p = config_.patch;
    return {latents[1] / p[0], latents[2] / p[1], latents[3] / p[2]};
}

DiTPositions DiT::positions(const Shape& latents) const { return positions(grid_of(latents), 0); }

DiTPositions DiT::positions(Grid grid, int64_t start) const {
    return {grid, start, rope_3d(grid, config_.head_dim, 10000.0, start, device())};
}

Tensor DiT::embed_time(const Tensor& timesteps, const Tensor& guidance) const {
    auto embed = [&](const Tensor& t, const Linear& in, const Linear& out) {
        Tensor sinusoid = timestep_embedding(t.reshape({t.numel()}), kSinusoid).to(dtype());
        return out.forward(in.forward(sinusoid, {.activation = Activation::silu}));
    };
    int64_t batch = timesteps.dim(0), groups = timesteps.numel() / batch;
    Tensor e = embed(timesteps, time_in, time_out).reshape({batch, groups, -1});
    if (guidance.defined()) {
        Tensor g = embed(guidance, *guidance_in, *guidance_out).reshape({batch, 1, -1});
        e = add(e, concat(std::vector<Tensor>(static_cast<size_t>(groups), g), 1));
    }
    return e;
}

Tensor DiT::patchify(const Tensor& latents, Grid grid) const {
    const auto& p = config_.patch;
    Tensor x = latents.reshape({latents.dim(0), grid.t, p[0], grid.h, p[1], grid.w, p[2], latents.cols()});
    return permute(x, {0, 1, 3, 5, 2, 4, 6, 7}).reshape({latents.dim(0), grid.tokens(), -1});
}

Tensor DiT::unpatchify(const Tensor& tokens, Grid grid) const {
    const auto& p = config_.patch;
    Tensor x =
        tokens.reshape({tokens.dim(0), grid.t, grid.h, grid.w, p[0], p[1], p[2], config_.out_channels});
    return permute(x, {0, 1, 4, 2, 5, 3, 6, 7})
        .reshape({tokens.dim(0), grid.t * p[0], grid.h * p[1], grid.w * p[2], config_.out_channels});
}

Tensor DiT::self_attended(Tensor x, const DiTConditions& c, int64_t together) const {
    Scope block_scope("blocks", 0);
    if (execution.before_block) execution.before_block(0);
    int64_t batch = x.dim(0);
    if (together >= batch) return blocks[0].self_attend(std::move(x), c, nullptr, nullptr);
    std::vector<Tensor> parts;
    for (int64_t first = 0; first < batch; first += together) {
        int64_t count = std::min(together, batch - first);
        parts.push_back(
            blocks[0].self_attend(x.outer_slice(first, count), c.samples(first, count), nullptr, nullptr));
    }
    return concat(parts, 0);
}

Tensor DiT::forward(const Tensor& latents, const Tensor& timesteps, const TextContext& text,
                    const Tensor& guidance, DiTStream* stream) const {
    Scope scope("dit");
    check_inputs(latents, timesteps, text, guidance, stream);
    Grid grid = grid_of(latents.shape());
    int64_t start = stream == nullptr ? 0 : stream->frames;
    DiTPositions known = stream == nullptr ? text.positions : stream->positions;
    if (!(known.grid == grid) || known.start != start) known = positions(grid, start);
    if (stream != nullptr) stream->positions = known;

    int64_t clips = latents.dim(0), batch = text.samples(), branches = batch / clips;
    auto for_all = [&](const Tensor& x) {
        return branches == 1 ? x : concat(std::vector<Tensor>(static_cast<size_t>(branches), x), 0);
    };
    Tensor e = embed_time(timesteps, guidance);
    DiTConditions c;
    c.time = modulation.forward(activate(e, Activation::silu));
    c.grid = grid;
    c.rope = known.rope;
    c.wide_frames = execution.wide_frames;

    // The samples that go through a block together.
    struct Part {
        int64_t first, count;
        DiTConditions conditions;
        Tensor x;  // [count,N,C]
    };
    int64_t together = execution.samples > 0 ? execution.samples : batch;
    check(stream == nullptr || together >= batch, "a stream of chunks takes all samples of a chunk at once");
    std::vector<Part> parts;
    Tensor x = patch_embed.forward(patchify(latents.to(dtype()), grid));
    if (branches > 1) x = for_all(self_attended(std::move(x), c, together));
    c.time = for_all(c.time);
    c.text_mask = text.mask;
    for (int64_t first = 0; first < batch; first += together) {
        int64_t count = std::min(together, batch - first);
        parts.push_back({first, count, c.samples(first, count), x.outer_slice(first, count)});
    }
    x = {};

    bool save = stream != nullptr && stream->save;
    if (stream != nullptr) stream->blocks.resize(blocks.size());
    for (size_t i = 0; i < blocks.size(); ++i) {
        Scope block_scope("blocks", static_cast<int64_t>(i));
        bool attended = i == 0 && branches > 1;
        if (execution.before_block && !attended) execution.before_block(i);
        BlockState next;
        BlockState* past = stream == nullptr ? nullptr : &stream->blocks[i];
        for (Part& part : parts) {
            Tensor keys_values = text.keys_values[i].outer_slice(part.first, part.count);
            if (recompute && !attended && stream == nullptr && Tape::current() != nullptr) {
                part.x = checkpoint([=, this, block_x = part.x, conditions = part.conditions] {
                    return blocks[i].forward(block_x, conditions, keys_values, nullptr, nullptr);
                });
            } else if (attended) {
                part.x =
                    blocks[i].read_and_mix(std::move(part.x), part.conditions, keys_values, nullptr, nullptr);
            } else {
                part.x = blocks[i].forward(std::move(part.x), part.conditions, keys_values, past,
                                           save ? &next : nullptr);
            }
            capture(parts.size() == 1 ? std::string("out") : join("out.", part.first), part.x);
        }
        if (save) *past = next;
    }
    if (save) stream->frames += grid.t;

    e = for_all(e);
    Tensor shift = affine(e, {}, head_modulation.value.select(0));
    Tensor scale = affine(e, {}, head_modulation.value.select(1));
    std::vector<Tensor> out;
    for (Part& part : parts) {
        Tensor h = layer_norm_modulate(part.x, shift.outer_slice(part.first, part.count),
                                       scale.outer_slice(part.first, part.count),
                                       static_cast<float>(config_.norm_eps));
        part.x = {};
        out.push_back(unpatchify(head.forward(h), grid));
    }
    return out.size() == 1 ? out[0] : concat(out, 0);
}

}  // namespace sana
