#include "apps/bench_training.h"

#include "core/random.h"
#include "ops/loss.h"
#include "train/slab.h"

namespace sana::apps {

namespace {

constexpr int64_t kTextLength = 300;  // positions that the transformer sees

struct Step {
    DiT dit;
    std::optional<Slab> slab;
    Tensor latents, target, times, states;
    int64_t done = 0;

    explicit Step(const DiTConfig& config) : dit(config) {}

    void run() {
        Tape tape;
        slab->require(tape);
        Tensor y = dit.forward(latents, times, dit.prepare_text(states, {}));
        Tensor loss = difference_loss(y, target, LossKind::squared);
        tape.backward(loss, full({1}, 1, loss.dtype(), loss.device()));
        slab->gather(tape, 1);
        slab->step(++done, {.rate = 1e-5, .clip = 0.1});
    }
};

}  // namespace

Subject train_step_subject(const ModelBench& bench) {
    Preset preset = preset_of(bench);
    Shape shape = latents_of(bench, preset, bench.batch);
    auto step = std::make_shared<Step>(preset.dit);
    draw(parameters(step->dit), 1, DType::F32, bench.device);
    step->slab.emplace(parameters(step->dit), SlabOptions{.compute = bench.dtype, .device = bench.device});
    release_cached(bench.device);  // what drawing has left
    step->latents = randn_philox(shape, 2, 0, bench.device).to(bench.dtype);
    step->target = randn_philox(shape, 3, 0, bench.device);
    step->states = randn_philox({bench.batch, kTextLength, preset.dit.caption_channels}, 4, 0, bench.device)
                       .to(bench.dtype);
    step->times = full({bench.batch}, 500, DType::F32, bench.device);
    // Forward twice (recomputation), and backward, which has two products for each of the forward pass.
    Work work = dit_work(preset.dit, shape, kTextLength, size_of(bench.dtype));
    Subject subject{"train-step",
                    join(bench.preset, ", ", preset.dit.layers, " layers, ", video_text(bench, preset),
                         ", batch ", bench.batch),
                    bench.dtype,
                    bench.device,
                    {4 * work.flop, 4 * work.product, 4 * work.bytes},
                    {}};
    subject.run = [step] { step->run(); };
    return subject;
}

}  // namespace sana::apps
