#include "train/prefetch.h"

#include <condition_variable>
#include <exception>
#include <map>
#include <mutex>
#include <thread>

namespace sana {

Batch batch_with_pixels(const Source& source, int64_t position,
                        const std::function<void(const std::string&)>& report, const Source::Kept& kept) {
    Batch batch = source.batch(position);
    size_t count = batch.samples.size();
    batch.videos.assign(count, Tensor());
    if (kept) batch.latents.assign(count, Tensor());
    auto there = [&](size_t i) { return batch.videos[i].defined() || (kept && batch.latents[i].defined()); };
    std::string last_message;
    for (size_t i = 0; i < count; ++i) {
        try {
            if (kept) batch.latents[i] = kept(batch.samples[i], batch.bucket);
            if (!there(i)) batch.videos[i] = source.video(batch.samples[i], batch.bucket);
        } catch (const InputError& error) {
            last_message = error.what();
            if (report) report(batch.samples[i].id + ": left out of a batch: " + last_message);
        }
    }
    for (size_t i = 0; i < count; ++i) {
        for (size_t step = 1; step < count && !there(i); ++step) {
            size_t other = (i + step) % count;
            if (!there(other)) continue;
            batch.videos[i] = batch.videos[other];
            if (kept) batch.latents[i] = batch.latents[other];
            batch.samples[i] = batch.samples[other];
        }
        check_input(there(i), "no sample of batch ", position, " can be read; the last: ", last_message);
    }
    return batch;
}

// Workers take positions in order; a batch waits in `ready` until it is its turn.
struct Prefetch::State {
    const Source& source;
    PrefetchOptions options;
    int64_t next_taken, next_given;
    std::map<int64_t, Batch> ready;
    std::map<int64_t, std::exception_ptr> failed;
    bool stop = false;
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<std::thread> workers;

    State(const Source& s, int64_t first, PrefetchOptions o)
        : source(s), options(std::move(o)), next_taken(first), next_given(first) {}

    void work() {
        std::unique_lock lock(mutex);
        while (true) {
            changed.wait(lock, [&] {
                return stop || next_taken < next_given + options.stride * std::max(1, options.ahead);
            });
            if (stop) return;
            int64_t position = next_taken;
            next_taken += options.stride;
            lock.unlock();
            Batch batch;
            std::exception_ptr error;
            try {
                batch = options.pixels ? batch_with_pixels(source, position, options.report, options.kept)
                                       : source.batch(position);
            } catch (...) {
                error = std::current_exception();
            }
            lock.lock();
            if (error) {
                failed[position] = error;
            } else {
                ready[position] = std::move(batch);
            }
            changed.notify_all();
        }
    }
};

Prefetch::Prefetch(const Source& source, int64_t first_position, PrefetchOptions options)
    : state_(std::make_unique<State>(source, first_position, std::move(options))) {
    check(state_->options.stride > 0, "prefetch: stride ", state_->options.stride);
    for (int i = 0; i < std::max(1, state_->options.threads); ++i)
        state_->workers.emplace_back([this] { state_->work(); });
}

Prefetch::~Prefetch() {
    {
        std::lock_guard lock(state_->mutex);
        state_->stop = true;
    }
    state_->changed.notify_all();
    for (std::thread& worker : state_->workers) worker.join();
}

Batch Prefetch::next() {
    std::unique_lock lock(state_->mutex);
    int64_t position = state_->next_given;
    state_->changed.wait(
        lock, [&] { return state_->ready.count(position) != 0 || state_->failed.count(position) != 0; });
    if (auto failed = state_->failed.find(position); failed != state_->failed.end())
        std::rethrow_exception(failed->second);
    Batch batch = std::move(state_->ready.at(position));
    state_->ready.erase(position);
    state_->next_given += state_->options.stride;
    state_->changed.notify_all();
    return batch;
}

}  // namespace sana
