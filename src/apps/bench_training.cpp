#include "apps/bench_training.h"

#include "core/random.h"
#include "ops/loss.h"
#include "train/lora.h"
#include "train/slab.h"

namespace sana::apps {

namespace {

constexpr int64_t kTextLength = 300;  // positions that the transformer sees

struct Step {
    DiT dit;
    std::optional<LoraAdapter> lora;
    std::optional<Slab> slab;
    Tensor latents, target, times, states;
    int64_t done = 0;

    explicit Step(const DiTConfig& config) : dit(config) {}

    void run() {
        Tape tape;
        slab->require(tape);
        if (lora) lora->apply();
        Tensor y = dit.forward(latents, times, dit.prepare_text(states, {}));
        Tensor loss = difference_loss(y, target, LossKind::squared);
        tape.backward(loss, full({1}, 1, loss.dtype(), loss.device()));
        slab->gather(slab->gradient(tape), 1);
        slab->step(++done, {.rate = 1e-5, .clip = 0.1}, slab->norm());
    }
};

}  // namespace

Subject train_step_subject(const ModelBench& bench) {
    Preset preset = preset_of(bench);
    Shape shape = latents_of(bench, preset, bench.batch);
    auto step = std::make_shared<Step>(preset.dit);
    bool lora = bench.lora_rank > 0;
    draw(parameters(step->dit), 1, lora ? bench.dtype : DType::F32, bench.device);
    if (lora)
        step->lora.emplace(parameters(step->dit), LoraOptions{.rank = bench.lora_rank}, 1, DType::F32,
                           bench.device);
    step->slab.emplace(lora ? step->lora->parameters() : parameters(step->dit),
                       SlabOptions{.compute = bench.dtype, .device = bench.device});
    release_cached(bench.device);  // what drawing has left
    step->latents = randn_philox(shape, 2, 0, bench.device).to(bench.dtype);
    step->target = randn_philox(shape, 3, 0, bench.device);
    step->states = randn_philox({bench.batch, kTextLength, preset.dit.caption_channels}, 4, 0, bench.device)
                       .to(bench.dtype);
    step->times = full({bench.batch}, 500, DType::F32, bench.device);
    // Forward twice (recomputation), and backward, which has two products for each of the forward pass; with LoRA one, the
    // weights' being few.
    double passes = lora ? 3 : 4;
    Work work = dit_work(preset.dit, shape, kTextLength, size_of(bench.dtype));
    Subject subject{"train-step",
                    join(bench.preset, ", ", preset.dit.layers, " layers, ", video_text(bench, preset),
                         ", batch ", bench.batch, lora ? join(", LoRA of rank ", bench.lora_rank) : ""),
                    bench.dtype,
                    bench.device,
                    {passes * work.flop, passes * work.product, passes * work.bytes},
                    {}};
    subject.run = [step] { step->run(); };
    return subject;
}

}  // namespace sana::apps
