#include "train/trainer.h"

#include <chrono>
#include <cmath>
#include <exception>
#include <filesystem>
#include <numbers>

#include "core/graph_cache.h"
#include "core/scope.h"
#include "io/text_file.h"
#include "ops/loss.h"
#include "train/metrics.h"
#include "train/prefetch.h"

namespace sana {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

// Batches of one source from a position on, with their pixels when the objective needs them.
class Stream {
public:
    Stream(const Source& source, int64_t position, int64_t stride, const TrainData& data,
           const TrainHooks& hooks)
        : prefetch_(source, position,
                    {.threads = data.threads,
                     .stride = stride,
                     .pixels = data.pixels,
                     .kept = data.kept,
                     .report = hooks.note}) {}
    Batch next() { return prefetch_.next(); }

private:
    Prefetch prefetch_;
};

// A batch that is ready to be computed.
struct Ready {
    Batch batch;
    std::vector<Tensor> inputs;
    std::exception_ptr error;  // why there is none
};

class Run {
public:
    Run(Objective& objective, const TrainData& data, const TrainOptions& options, const TrainHooks& hooks)
        : objective_(objective),
          data_(data),
          o_(options),
          hooks_(hooks),
          slab_(objective.parameters(), options.slab),
          graphs_(options.slab.device, hooks.note),
          one_(full({1}, 1, DType::F32, options.slab.device)),
          checkpoints_(options.folder + "/checkpoints", options.keep, options.small_checkpoints) {
        check_input(data.videos != nullptr, "there is no data to train on");
        check_input(o_.image_interval == 0 || data.pictures != nullptr, "image-interval is ",
                    o_.image_interval, " but there are no pictures; name them");
        identity_["stage"] = objective.stage();
        identity_["data"] = data.videos->fingerprint();
        identity_["seed"] = join(static_cast<int64_t>(o_.seed));
        identity_["accumulation"] = join(o_.accumulation);
        if (processes() > 1) identity_["processes"] = join(processes());
        identity_["optimizer"] = name_of(o_.slab.optimizer);
        // Kept latents are made clip by clip, others batch by batch: equal to rounding only.
        if (data.kept) identity_["latents"] = "kept";
        if (o_.image_interval > 0)
            identity_["pictures"] = join(o_.image_interval, " ", data.pictures->fingerprint());
    }

    TrainResult go() {
        make_folders(o_.folder);
        // The others look at the folder when the first one has found it good, before it writes there.
        if (!leads()) meet();
        start();
        if (leads()) {
            meet();
            metrics_.emplace(o_.folder, at_.step);
        }
        // Steps of pictures before this one decide where both streams stand.
        int64_t picture_steps =
            o_.image_interval > 0 && at_.step > 0 ? (at_.step - 1) / o_.image_interval : 0;
        auto open = [&](std::optional<Stream>& stream, const Source& source, int64_t steps) {
            stream.emplace(source, steps * o_.accumulation * processes() + rank(), processes(), data_,
                           hooks_);
        };
        open(videos_, *data_.videos, at_.step - picture_steps);
        if (o_.image_interval > 0) open(pictures_, *data_.pictures, picture_steps);
        began_ = Clock::now();
        int64_t first = at_.step;
        while (at_.step < o_.steps) {
            make_step();
            if (at_.step % o_.hold_out_every == 0 || at_.step == o_.steps) hold_out();
            bool stop = of_any(hooks_.cancelled && hooks_.cancelled());
            bool out_of_time = of_any(o_.minutes > 0 && seconds_since(began_) > 60 * o_.minutes);
            if (at_.step % o_.checkpoint_every == 0 || at_.step == o_.steps || stop || out_of_time) save();
            if (o_.sample_every > 0 && at_.step % o_.sample_every == 0 && at_.step < o_.steps) sample();
            if (stop) throw Cancelled(join("stopped after step ", at_.step, "; --resume goes on from there"));
            if (out_of_time) break;
        }
        result_.seconds_a_step =
            at_.step == first ? 0 : seconds_since(began_) / static_cast<double>(at_.step - first);
        result_.step = at_.step;
        if (leads()) result_.checkpoint = checkpoints_.newest_folder();
        sample();
        return result_;
    }

private:
    int processes() const { return o_.group == nullptr ? 1 : o_.group->size(); }
    int rank() const { return o_.group == nullptr ? 0 : o_.group->rank(); }
    bool leads() const { return rank() == 0; }
    // Sums over the processes, so that all know the same.
    void sum(std::vector<double>& values) const {
        if (o_.group != nullptr) o_.group->sum(values);
    }
    void meet() const {
        std::vector<double> nothing(1);
        sum(nothing);
    }
    bool of_any(bool here) const {
        std::vector<double> count{here ? 1.0 : 0.0};
        sum(count);
        return count[0] > 0;
    }

    void note(const std::string& text) const {
        if (hooks_.note) hooks_.note(text);
    }

    void start() {
        std::optional<Saved> saved;
        if (o_.resume) saved = checkpoints_.newest();
        if (!o_.resume) {
            check_input(checkpoints_.newest_folder().empty(), o_.folder, ": holds a run already (",
                        checkpoints_.newest_folder(), "); --resume goes on with it, or choose another --out");
        }
        if (!saved) {
            if (o_.resume) note("no checkpoint yet: the run starts at the beginning");
            return;
        }
        for (const auto& [key, here] : identity_) {
            auto it = saved->at.identity.find(key);
            std::string there = it == saved->at.identity.end() ? "missing" : it->second;
            check_input(there == here, saved->folder, ": the run had ", key, " = ", there, ", now it is ",
                        here, "; a run resumes with what it began with");
        }
        for (const auto& [key, there] : saved->at.identity)
            check_input(identity_.count(key) != 0, saved->folder, ": the run had ", key, " = ", there,
                        ", now it has none; a run resumes with what it began with");
        restore(*saved, slab_.state());
        slab_.refresh();
        at_ = saved->at;
        note(join("goes on from ", saved->folder));
    }

    // The batch at this position; steps are counted from 0 here.
    Ready make_ready(int64_t position) {
        Ready out;
        try {
            int64_t step = position / o_.accumulation;
            bool of_pictures = o_.image_interval > 0 && step > 0 && step % o_.image_interval == 0;
            out.batch = (of_pictures ? *pictures_ : *videos_).next();
            Draws draws{o_.seed, position * processes() + rank()};
            out.inputs = objective_.inputs(out.batch, objective_.prepare(out.batch, draws), draws);
        } catch (...) {
            out.error = std::current_exception();
        }
        return out;
    }

    struct Computed {
        std::vector<Tensor> values;             // loss, gradient and parts of the loss
        const std::vector<std::string>& parts;  // their names
    };
    // Work that is recorded the second time and then repeated.
    Computed compute(const std::vector<Tensor>& inputs) {
        std::string key;
        for (const Tensor& x : inputs) key += join(x, " ");
        // A recording does not say which parts it has, and a picture has fewer than a clip.
        std::vector<std::string>& names = part_names_[key];
        auto work = [this, &names](const std::vector<Tensor>& x) {
            Tape tape;
            slab_.require(tape);
            Losses losses = objective_.losses_of(x);
            tape.backward(losses.total, one_);
            std::vector<Tensor> out{losses.total, slab_.gradient(tape)};
            names.clear();
            for (const auto& [name, part] : losses.parts) {
                names.push_back(name);
                out.push_back(part);
            }
            return out;
        };
        return {graphs_.run_several(key, inputs, work), names};
    }

    void make_step() {
        auto began = Clock::now();
        int64_t step = at_.step + 1;
        bool log = step % o_.log_every == 0 || step == o_.steps;
        double share = 1 / static_cast<double>(o_.accumulation * processes()), loss = 0, norm = 0;
        std::map<std::string, double> parts;
        for (int64_t i = 0; i < o_.accumulation; ++i) {
            Ready now = next_ ? std::move(*next_) : make_ready(at_.position);
            next_.reset();
            if (now.error) std::rethrow_exception(now.error);
            Computed computed = compute(now.inputs);
            slab_.gather(computed.values[1], share);
            at_.position += 1;
            bool last = i + 1 == o_.accumulation;
            // While the device computes.
            if (!last || step < o_.steps) next_ = make_ready(at_.position);
            if (last && o_.group != nullptr) slab_.sum(*o_.group);
            if (last) norm = slab_.norm();
            double value = item(computed.values[0]);
            if (!std::isfinite(value)) stop_at_loss(now.batch, now.inputs, value);
            loss += value * share;
            for (size_t k = 0; log && k < computed.parts.size(); ++k)
                parts[computed.parts[k]] += item(computed.values[k + 2]) * share;
        }
        if (!std::isfinite(norm)) {
            throw Error(join("the gradient of step ", step, " is not finite, nearest to the loss in ",
                             slab_.not_finite(), "; ", last_good()));
        }
        StepOptions options = o_.step;
        options.rate = rate_at(o_, step);
        slab_.step(step, options, norm);
        at_.step = step;
        result_.loss = loss * processes();  // of this process
        double seconds = seconds_since(began);
        pace_ = pace_ == 0 ? seconds : 0.9 * pace_ + 0.1 * seconds;
        if (log) {
            std::vector<double> sums{loss};
            for (const auto& [name, value] : parts) sums.push_back(value);
            sum(sums);
            result_.loss = sums[0];
            std::vector<std::pair<std::string, double>> values{
                {"loss", sums[0]}, {"norm", norm}, {"rate", options.rate}, {"seconds", seconds}};
            for (const auto& [name, value] : parts) values.emplace_back(name, sums[values.size() - 3]);
            if (metrics_) metrics_->add(step, values);
        }
        if (hooks_.progress) {
            double left = pace_ * static_cast<double>(o_.steps - step);
            if (o_.minutes > 0) left = std::min(left, std::max(0.0, 60 * o_.minutes - seconds_since(began_)));
            hooks_.progress({step, o_.steps, result_.loss, norm, options.rate, pace_, left});
        }
    }

    std::string last_good() const {
        std::string folder = checkpoints_.newest_folder();
        return folder.empty() ? "there is no checkpoint before it" : "the last good checkpoint is " + folder;
    }

    // Computes the loss again, watching intermediate values.
    [[noreturn]] void stop_at_loss(const Batch& batch, const std::vector<Tensor>& inputs,
                                   double value) const {
        std::string where = "the loss itself", samples;
        try {
            NoTape pause;
            Capture capture("*");
            objective_.losses_of(inputs);
            for (const auto& [name, tensor] : capture.values) {
                if (is_float(tensor.dtype()) && !std::isfinite(square_sum(tensor.contiguous()))) {
                    where = name;
                    break;
                }
            }
        } catch (const Error&) {
            where = "a layer that cannot be computed any more";
        }
        for (const Sample& sample : batch.samples) samples += (samples.empty() ? "" : ", ") + sample.id;
        throw Error(join("the loss of step ", at_.step + 1, " is ", value, ", not finite first in ", where,
                         " (samples ", samples, "); ", last_good()));
    }

    void hold_out() {
        if (!leads() || data_.held_out == nullptr || o_.hold_out_batches == 0) return;
        NoTape pause;
        Slab::Averaged averaged(slab_);
        std::map<std::string, double> sums;
        for (int64_t i = 0; i < o_.hold_out_batches; ++i) {
            Batch batch = data_.pixels ? batch_with_pixels(*data_.held_out, i, hooks_.note, data_.kept)
                                       : data_.held_out->batch(i);
            Draws draws{~o_.seed, i};  // the same noise every time, and other noise than in training
            std::vector<Tensor> inputs = objective_.inputs(batch, objective_.prepare(batch, draws), draws);
            for (const auto& [name, value] : objective_.judge(inputs))
                sums[name] += value / static_cast<double>(o_.hold_out_batches);
        }
        result_.held_out = sums["held_out"];
        std::vector<std::pair<std::string, double>> values(sums.begin(), sums.end());
        metrics_->add(at_.step, values);
        std::string text = join("step ", at_.step, ", held out: loss ", result_.held_out);
        if (sums.count("held_out_psnr") != 0) text += join(", ", sums["held_out_psnr"], " dB");
        note(text);
    }

    void save() {
        if (!leads()) return;
        try {
            result_.checkpoint = checkpoints_.save({at_.step, at_.position, identity_}, slab_.state());
        } catch (const InputError& error) {
            throw InputError(join(error.what(), "; ", last_good()));
        }
    }

    void sample() {
        if (!leads()) return;
        std::string folder = o_.folder + "/model";
        {
            Slab::Averaged averaged(slab_);
            if (hooks_.before_write) hooks_.before_write();
        }
        objective_.write_model(folder, [&](size_t i) { return slab_.exported(i); });
        result_.model = folder;
        if (hooks_.samples) hooks_.samples(at_.step, folder);
    }

    Objective& objective_;
    const TrainData& data_;
    const TrainOptions& o_;
    const TrainHooks& hooks_;
    Slab slab_;
    GraphCache graphs_;
    Tensor one_;  // what gradients start with
    std::optional<Stream> videos_, pictures_;
    std::optional<Ready> next_;
    std::map<std::string, std::vector<std::string>> part_names_;  // by the shapes of a batch
    Checkpoints checkpoints_;
    std::map<std::string, std::string> identity_;
    RunPosition at_;
    std::optional<Metrics> metrics_;
    Clock::time_point began_;
    double pace_ = 0;
    TrainResult result_;
};

}  // namespace

double rate_at(const TrainOptions& o, int64_t step) {
    if (step < o.warmup) return o.step.rate * static_cast<double>(step) / static_cast<double>(o.warmup);
    double done = std::min(1.0, static_cast<double>(step - o.warmup) /
                                    static_cast<double>(std::max<int64_t>(1, o.steps - o.warmup)));
    switch (o.schedule) {
        case RateSchedule::cosine: return o.step.rate * (0.55 + 0.45 * std::cos(std::numbers::pi * done));
        case RateSchedule::linear: return o.step.rate * (1 - done);
        default: return o.step.rate;
    }
}

TrainResult train(Objective& objective, const TrainData& data, const TrainOptions& options,
                  const TrainHooks& hooks) {
    return Run(objective, data, options, hooks).go();
}

}  // namespace sana
