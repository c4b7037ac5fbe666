#include "pipeline/memory_plan.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "core/cuda/device.h"
#include "pipeline/block_stream.h"

namespace sana {

namespace {

constexpr int64_t kMiB = int64_t{1} << 20, kGiB = int64_t{1} << 30;
constexpr int64_t kWorkspace = 96 * kMiB;  // of matrix products, and what small tensors round up to
constexpr int64_t kReserve = kGiB;         // of "auto": code, handles and the display
constexpr int64_t kEfficientRows = 8192;   // rows below which a product no longer fills a large GPU

std::string size_text(int64_t bytes) {
    char text[32];
    std::snprintf(text, sizeof text, "%.2f GiB", static_cast<double>(bytes) / static_cast<double>(kGiB));
    return text;
}

int64_t weight_bytes(const std::vector<NamedParameter>& parameters, DType dtype, const Fp8Rule& fp8 = {}) {
    int64_t bytes = 0;
    for (const NamedParameter& p : parameters) {
        const Shape& shape = p.parameter->shape;
        bytes += fp8.takes(p) ? shape.numel() + shape[0] * size_of(DType::F32)
                              : shape.numel() * size_of(p.parameter->keep_fp32 ? DType::F32 : dtype);
    }
    return bytes;
}

PhaseMemory text_memory(const MemoryQuestion& q) {
    Gemma2 model(q.text);
    DType dtype = q.placement.text.value_or(q.text.stored_bf16 ? DType::BF16 : DType::F32);
    PhaseMemory m{.phase = Phase::text};
    m.weights = weight_bytes(parameters(model), dtype);
    // A prompt behind its instruction; the widest moment is the feed-forward's.
    constexpr int64_t kLongest = 1024;
    m.working = kLongest * (4 * q.text.hidden + 3 * q.text.inner) * size_of(dtype) + kWorkspace;
    return m;
}

// Bytes of the activations that an autoencoder holds at its widest place, a frame of video.
int64_t decode_frame_bytes(const VaeConfig& config, const Shape& latents, DType dtype) {
    VaeShape shape = shape_of(config);
    int64_t pixels = latents[2] * latents[3] * shape.spatial_factor * shape.spatial_factor;
    const auto* wan = std::get_if<WanVaeConfig>(&config);
    if (wan != nullptr) return pixels * wan->decoder_base * size_of(dtype);
    const auto& ltx2 = std::get<Ltx2VaeConfig>(config);
    int64_t channels = ltx2.decoder_widths.back();
    for (int64_t factor : ltx2.upsample_factor) channels /= factor;
    return pixels / (ltx2.patch * ltx2.patch) * channels * size_of(dtype);
}

// The decoder itself takes as many latent frames at once as there is memory for.
PhaseMemory decode_memory(const MemoryQuestion& q, int64_t budget) {
    Vae model(q.vae, VaeParts::decoder);
    PhaseMemory m{.phase = Phase::decode};
    m.weights = weight_bytes(model.parameters(), q.placement.vae);
    int64_t frame = decode_frame_bytes(q.vae, q.latents, q.placement.vae),
            frames = shape_of(q.vae).temporal_factor, clip = q.latents[1];
    const auto* ltx2 = std::get_if<Ltx2VaeConfig>(&q.vae);
    if (ltx2 != nullptr && !ltx2->decoder_causal) {
        // The clip as a whole: at its widest place an input, its normalised form, the result and what is kept of the
        // place before; measured at 81 frames of 1280 x 704: 4.1.
        m.working = (frames * (clip - 1) + 1) * frame * 9 / 2 + kWorkspace;
        return m;
    }
    // Six tensors of the widest place: the block's input, its normalised form and the result, and blocks of the sizes
    // before that wait for reuse. The two frames that every convolution keeps make twenty-two more frames of that size.
    auto working = [&](int64_t latent_frames) {
        return (6 * latent_frames * frames + 22) * frame + kWorkspace;
    };
    int64_t n = clip;
    while (budget > 0 && n > 1 && m.weights + working(n) > budget) --n;
    m.working = working(n);
    if (n < clip) m.how = join("about ", n, " of ", clip, " latent frames at a time");
    return m;
}

// One picture to latents.
PhaseMemory image_memory(const MemoryQuestion& q) {
    Vae model(q.vae, VaeParts::encoder);
    PhaseMemory m{.phase = Phase::image};
    m.weights = weight_bytes(model.parameters(), q.placement.vae);
    m.working = 8 * decode_frame_bytes(q.vae, q.latents, q.placement.vae) + kWorkspace;
    return m;
}

struct DiTChoice {
    int64_t samples = 0, wide_frames = 0, resident = -1;
    PhaseMemory memory{.phase = Phase::denoise};
};

class DiTPlanner {
public:
    explicit DiTPlanner(const MemoryQuestion& q) : q_(q), layers_(q.dit.layers) {
        DiT model(q.dit);
        DType dtype = q.placement.transformer;
        // Named as in the whole model, so that globs find them.
        std::vector<std::vector<NamedParameter>> blocks(static_cast<size_t>(layers_));
        std::vector<NamedParameter> ends;
        for (const NamedParameter& p : parameters(model)) {
            if (p.name.starts_with("blocks.")) {
                blocks[static_cast<size_t>(std::stoll(p.name.substr(7)))].push_back(p);
            } else {
                ends.push_back(p);
            }
        }
        for (const auto& block : blocks)
            block_ = std::max(block_, BlockStream::bytes_of(block, dtype, q.placement.fp8));
        ends_ = weight_bytes(ends, dtype, q.placement.fp8);
        batch_ = q.guided ? 2 : 1;
        frames_ = q.latents[1] / q.dit.patch[0];
        positions_ = q.latents[2] / q.dit.patch[1] * (q.latents[3] / q.dit.patch[2]);
    }

    DiTChoice choose(int64_t budget) const {
        for (const DiTChoice& c : candidates()) {
            if (budget == 0 || c.memory.peak() <= budget) return c;
        }
        // Some blocks have to be streamed: what is left after the smallest activations goes to those that stay.
        DiTChoice c = candidates().back();
        for (int64_t resident = layers_ - 2; resident >= 0; --resident) {
            c.resident = resident;
            c.memory = memory_of(c);
            if (c.memory.peak() <= budget) return c;
        }
        return c;
    }

private:
    // From the quickest to the smallest.
    std::vector<DiTChoice> candidates() const {
        std::vector<DiTChoice> list;
        int64_t efficient = (kEfficientRows + positions_ - 1) / positions_;
        for (int64_t samples : batch_ > 1 ? std::vector<int64_t>{0, 1} : std::vector<int64_t>{0}) {
            int64_t all = (samples == 0 ? batch_ : samples) * frames_;
            add(list, samples, 0);
            for (int64_t pieces = 2; all / pieces >= efficient; ++pieces) {
                int64_t frames = (all + pieces - 1) / pieces;
                if (list.back().wide_frames != frames) add(list, samples, frames);
            }
        }
        return list;
    }

    void add(std::vector<DiTChoice>& list, int64_t samples, int64_t wide_frames) const {
        DiTChoice c{.samples = samples, .wide_frames = wide_frames};
        c.memory = memory_of(c);
        list.push_back(c);
    }

    PhaseMemory memory_of(const DiTChoice& c) const {
        PhaseMemory m{.phase = Phase::denoise};
        bool streamed = c.resident >= 0;
        m.weights = ends_ + block_ * (streamed ? c.resident + 2 : layers_);
        m.streamed = streamed ? block_ * (layers_ - c.resident) : 0;
        int64_t element = size_of(q_.placement.transformer), width = q_.dit.width(), inner = q_.dit.inner();
        int64_t together = c.samples == 0 ? batch_ : c.samples, rows = frames_ * positions_;
        int64_t hidden = together * rows * width * element, whole = batch_ * rows * width * element;
        bool pieces = c.wide_frames > 0;
        int64_t wide_rows = pieces ? c.wide_frames * positions_ : together * rows;
        // Blocks of four sizes are taken and stay for reuse: hidden tensors (the stream of tokens counted apart: beside it
        // up to four at once), q, k, v side by side, which serve again as the gated inner tensor where sizes agree, and
        // the doubled inner tensor. The half-sized ones of the first block's self attention under guidance are not counted:
        // what no later tensor takes of them is given back when the budget asks for it.
        int64_t qkv = 3 * hidden, doubled = wide_rows * 2 * inner * element,
                gated = wide_rows * inner * element;
        int64_t shared = gated <= qkv && qkv <= std::min(2 * gated, gated + 4 * kMiB) ? 0 : gated;
        m.working = whole + (together < batch_ ? hidden : 0) + 4 * hidden + qkv + doubled + shared;
        int64_t keys_values = layers_ * batch_ * q_.text_length * 2 * width * element;
        int64_t latents =
            (batch_ + 8) * q_.latents.numel() * 4;  // the sampler's, a step's, and both branches'
        m.working += keys_values + latents + kWorkspace;
        std::string how;
        auto say = [&](const std::string& words) { how += (how.empty() ? "" : "; ") + words; };
        if (streamed) say(join(layers_ - c.resident, " of ", layers_, " blocks streamed from the host"));
        if (together < batch_) say("guidance branches one after the other in each block");
        if (pieces) say(join("feed-forward ", c.wide_frames, " frames at a time"));
        m.how = how;
        return m;
    }

    const MemoryQuestion& q_;
    int64_t layers_, block_ = 0, ends_ = 0, batch_ = 1, frames_ = 1, positions_ = 1;
};

}  // namespace

int64_t MemoryPlan::peak() const {
    int64_t most = 0;
    for (const PhaseMemory& m : phases) most = std::max(most, m.peak());
    return most;
}

MemoryPlan plan_memory(const MemoryQuestion& q, int64_t budget) {
    MemoryPlan plan{.budget = budget};
    PhaseMemory text = text_memory(q);
    if (budget > 0 && text.peak() > budget) {
        plan.text_on_host = true;
        text = {.phase = Phase::text, .how = "on the CPU"};
    }
    plan.phases.push_back(text);
    if (q.image) plan.phases.push_back(image_memory(q));
    DiTChoice dit = DiTPlanner(q).choose(budget);
    plan.samples = dit.samples;
    plan.wide_frames = dit.wide_frames;
    plan.resident_blocks = dit.resident;
    plan.phases.push_back(dit.memory);
    plan.phases.push_back(decode_memory(q, budget));
    if (budget == 0 || plan.peak() <= budget) return plan;
    const PhaseMemory& worst = *std::max_element(plan.phases.begin(), plan.phases.end(),
                                                 [](auto& a, auto& b) { return a.peak() < b.peak(); });
    fail_input("this video does not fit ", size_text(budget), " of device memory: ", name_of(worst.phase),
               " takes at least ", size_text(worst.peak()),
               "; choose a smaller size, fewer frames, or --vram of that much");
}

std::string to_text(const MemoryPlan& plan) {
    std::string out =
        plan.budget > 0 ? join("memory plan for ", size_text(plan.budget), ":") : std::string("memory plan:");
    for (const PhaseMemory& m : plan.phases) {
        char line[160];
        std::snprintf(line, sizeof line, "\n  %-8s  %s weights, %s working, at most %s",
                      std::string(name_of(m.phase)).c_str(), size_text(m.weights).c_str(),
                      size_text(m.working).c_str(), size_text(m.peak()).c_str());
        out += line;
        if (m.streamed > 0) out += ", " + size_text(m.streamed) + " streamed a pass";
        if (!m.how.empty()) out += " (" + m.how + ")";
    }
    return out;
}

int64_t parse_vram(const std::string& text) {
    if (text == "auto") return 0;
    double number = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
    bool known = unit == "G" || unit == "GiB" || unit == "M" || unit == "MiB";
    check_input(error == std::errc() && known && number > 0, "'", text,
                "' is not an amount of device memory; auto, or a number and G or M (8G, 7.5G, 6000M)");
    double bytes = number * static_cast<double>(unit[0] == 'G' ? kGiB : kMiB);
    check_input(bytes >= static_cast<double>(kGiB) && bytes <= static_cast<double>(1024 * kGiB), text,
                " is out of range; 1G .. 1024G");
    return static_cast<int64_t>(bytes);
}

int64_t automatic_budget(Device device) {
    if (device == kCpu) return 0;
    return std::max(kGiB, cuda::device_info(device.index).free - kReserve);
}

}  // namespace sana
