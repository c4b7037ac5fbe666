// SANA-Video's linear diffusion transformer (arXiv 2509.24695; diffusers SanaVideoTransformer3DModel).
// Letters: B samples, T H W token grid, N = T*H*W tokens, C width, F inner width, L text positions, G modulation groups.
#pragma once

#include <functional>
#include <vector>

#include "models/dit/config.h"
#include "nn/fp8.h"
#include "nn/linear.h"
#include "nn/names.h"
#include "nn/norm.h"
#include "ops/conv.h"
#include "ops/linear_attention.h"

namespace sana {

struct DiTConditions;

// Modulation rows of one block, each [B,G,C].
struct Modulation {
    Tensor shift_attention, scale_attention, gate_attention, shift_ffn, scale_ffn, gate_ffn;
};

// What a block keeps between the chunks of a block-causal stream.
struct BlockState {
    LinearState attention;
    Tensor last_frame;  // [B,1,S,C] before the temporal convolution
    bool empty() const { return !last_frame.defined(); }
};

// The rotary tables of a grid of tokens whose first frame stands at `start`: fp64 work and a transfer, so they are kept
// for as long as the grid stays the same.
struct DiTPositions {
    Grid grid{0, 0, 0};
    int64_t start = 0;
    Rope rope;
};

// A stream of chunks: the state of all earlier chunks and the frames they covered.
struct DiTStream {
    std::vector<BlockState> blocks;
    DiTPositions positions;  // of the last chunk
    int64_t frames = 0;      // token frames in the state
    bool save = false;       // whether the next forward() adds its chunk to the state
};

// What a layer reads, given away to it: rows as they are, or as the codes that E4M3 weights multiply with.
struct LayerInput {
    Tensor dense;
    Fp8 codes;
    DType dtype = DType::F32;  // of the layer's result

    Tensor into(const Linear& layer) const;
    Shape shape() const;
    LayerInput reshape(const Shape& shape) const;
    LayerInput outer_slice(int64_t start, int64_t length) const;
};

struct SelfAttention {
    Linear qkv, out;
    RmsNorm q_norm, k_norm;
    int64_t heads = 1;
    float eps = 0;

    // residual + gate * out(linear_attention(q, k, v)).   x [B,N,C], given away: it is gone when the wide tensors come
    Tensor forward(LayerInput x, const Rope& rope, BlockState* past, BlockState* next,
                   const Epilogue& epilogue) const;
    void visit(auto& v) {
        v("qkv", qkv);
        v("q_norm", q_norm);
        v("k_norm", k_norm);
        v("out", out);
    }
};

struct CrossAttention {
    Linear q, kv, out;
    RmsNorm q_norm, k_norm;
    int64_t heads = 1;

    // Keys (normalised) and values of a prompt, side by side: [B,L,2C]. Computed once a prompt.
    Tensor keys_values(const Tensor& text) const;
    Tensor forward(const Tensor& x, const Tensor& keys_values,
                   const Tensor& mask) const;  // x + out(attention)
    void visit(auto& v) {
        v("q", q);
        v("kv", kv);
        v("q_norm", q_norm);
        v("k_norm", k_norm);
        v("out", out);
    }
};

// Expand, look around in space, gate, contract, look around in time.
struct MixFFN {
    Linear inverted, point;
    Parameter depth_weight, depth_bias;  // [3,3,2F], [2F]
    Parameter temporal;                  // [C,3,C]

    // x [B,N,C], given away. wide_frames: token frames that are widened at once, 0: all.
    Tensor forward(LayerInput x, Grid grid, int64_t wide_frames, BlockState* past, BlockState* next,
                   const Epilogue& epilogue) const;
    void visit(auto& v) {
        v("inverted", inverted);
        v("depth.weight", depth_weight);
        v("depth.bias", depth_bias);
        v("point", point);
        v("temporal.weight", temporal);
    }

private:
    // [B,T,H,W,C] -> [B,T,H*W,C]: all but the temporal convolution.
    Tensor in_space(const LayerInput& x) const;
    Tensor in_pieces(const LayerInput& x, Grid grid, int64_t frames) const;
};

struct DiTBlock {
    Parameter modulation;  // [6,C], added to the time modulation
    SelfAttention attention;
    CrossAttention cross;
    MixFFN ffn;
    float norm_eps = 1e-6f;

    explicit DiTBlock(const DiTConfig& config);
    // The two halves of forward(): what comes before the text is looked at, and the rest.
    Tensor self_attend(Tensor x, const DiTConditions& c, BlockState* past, BlockState* next) const;
    Tensor read_and_mix(Tensor x, const DiTConditions& c, const Tensor& keys_values, BlockState* past,
                        BlockState* next) const;
    Tensor forward(Tensor x, const DiTConditions& c, const Tensor& keys_values, BlockState* past,
                   BlockState* next) const;
    void visit(auto& v) {
        v("modulation", modulation);
        v("attention", attention);
        v("cross", cross);
        v("ffn", ffn);
    }
};

// A prompt as the blocks need it: made once, used in every step.
struct TextContext {
    std::vector<Tensor> keys_values;  // a block: [B,L,2C]
    Tensor mask;                      // [B,L] int32, nonzero = keep; none: all positions
    DiTPositions positions;           // of the clip that all steps work on (DiT::positions()), or empty

    int64_t samples() const { return keys_values.empty() ? 0 : keys_values[0].dim(0); }
};

// How a forward pass is cut, so that less of it is in memory at once. Results stay what they are, to rounding.
struct DiTExecution {
    int64_t samples = 0;      // that go through a block together; 0: all
    int64_t wide_frames = 0;  // token frames that are in the wide part of the feed-forward together; 0: all
    std::function<void(size_t block)> before_block = {};  // the block's weights are needed from now on
};

class DiT {
public:
    explicit DiT(const DiTConfig& config);

    // states [B,L,caption_channels], mask [B,L] int32 or none.
    TextContext prepare_text(const Tensor& states, const Tensor& mask) const;

    // For TextContext::positions: the tables of latents [B,T,H,W,Z], so that forward() need not make them anew.
    DiTPositions positions(const Shape& latents) const;

    // Velocity (noise - clean) of latents [B,T,H,W,Z] at timesteps in 0..1000: [B], or [B,T'] with one for each token
    // frame (T' = T / patch). guidance [B] only for models with a guidance embedding. A text context of k B samples, as
    // guidance has, stands for k branches that begin with the same latents and times: sample j B + b belongs to latents b,
    // the result is [kB,T,H,W,Z], and what comes before the first cross attention is computed once.
    // stream: the latents are the frames after those of the stream's state; nullptr: a whole clip.
    Tensor forward(const Tensor& latents, const Tensor& timesteps, const TextContext& text,
                   const Tensor& guidance = {}, DiTStream* stream = nullptr) const;

    const DiTConfig& config() const { return config_; }
    DType dtype() const { return patch_embed.weight.value.dtype(); }
    Device device() const { return patch_embed.weight.value.device(); }
    void visit(auto& v) {
        v("patch_embed", patch_embed);
        v("time_in", time_in);
        v("time_out", time_out);
        v("guidance_in", guidance_in);
        v("guidance_out", guidance_out);
        v("modulation", modulation);
        v("caption_in", caption_in);
        v("caption_out", caption_out);
        v("caption_norm", caption_norm);
        v("blocks", blocks);
        v("head_modulation", head_modulation);
        v("head", head);
    }

    Linear patch_embed, time_in, time_out, modulation, caption_in, caption_out, head;
    std::optional<Linear> guidance_in, guidance_out;
    RmsNorm caption_norm;
    std::vector<DiTBlock> blocks;
    Parameter head_modulation;  // [2,C]: shift, scale
    // In training: blocks keep their input alone and are computed again in the backward pass.
    bool recompute = true;
    DiTExecution execution;

private:
    Grid grid_of(const Shape& latents) const;
    DiTPositions positions(Grid grid, int64_t start) const;
    // The first block's self attention, `together` samples at a time.
    Tensor self_attended(Tensor x, const DiTConditions& c, int64_t together) const;
    Tensor patchify(const Tensor& latents, Grid grid) const;
    Tensor unpatchify(const Tensor& tokens, Grid grid) const;
    Tensor embed_time(const Tensor& timesteps, const Tensor& guidance) const;
    void check_inputs(const Tensor& latents, const Tensor& timesteps, const TextContext& text,
                      const Tensor& guidance, const DiTStream* stream) const;

    DiTConfig config_;
};

// The layers that --precision fp8 turns to E4M3: those of a block that every step multiplies with.
Fp8Rule dit_fp8_rule();

// Keys of the two checkpoint formats.
CheckpointNames dit_diffusers_names(const DiTConfig& config);
CheckpointNames dit_official_names();

// Whether these are the tensors of an official checkpoint (SANA_Video_2B_480p.pth), and the config that their shapes
// tell. head_dim is not among them: 112 in every released model.
bool looks_official(const TensorMap& tensors);
DiTConfig infer_dit_config(const TensorMap& tensors, int64_t head_dim, const std::string& source);

}  // namespace sana
