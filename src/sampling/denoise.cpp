#include "sampling/denoise.h"

#include "core/scope.h"
#include "ops/layout.h"
#include "ops/pointwise.h"

namespace sana {

Tensor guide(const Tensor& negative, const Tensor& positive, double scale) {
    return combine({{1 - scale, negative}, {scale, positive}});
}

Tensor denoise(Tensor x, Sampler& sampler, int64_t keep_frames,
               const std::function<Tensor(const Tensor& x, double t)>& velocity, const DenoiseHooks& hooks) {
    Scope scope("denoise");
    int64_t frames = x.dim(1);
    check(keep_frames >= 0 && keep_frames < frames, "keeping ", keep_frames, " of ", frames, " frames");
    Tensor kept = keep_frames > 0 ? slice(x, 1, 0, keep_frames).clone() : Tensor();
    auto moving = [&](const Tensor& all) {
        return slice(all, 1, keep_frames, frames - keep_frames).contiguous();
    };
    auto whole = [&](const Tensor& part) { return kept.defined() ? concat({kept, part}, 1) : part; };
    for (int64_t k = sampler.position(); k < sampler.steps(); ++k) {
        if (hooks.cancelled && hooks.cancelled())
            throw Cancelled(join("cancelled after ", k, " of ", sampler.steps(), " steps"));
        Tensor v = velocity(x, sampler.schedule().timesteps[static_cast<size_t>(k)]);
        x = whole(sampler.step(moving(x), moving(v)));
        if (hooks.on_step) hooks.on_step(k + 1, sampler.steps(), x, whole(sampler.clean()));
    }
    return x;
}

}  // namespace sana
