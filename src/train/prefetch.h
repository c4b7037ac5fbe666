// Batches with their pixels, made ahead of time by worker threads and handed out in order.
#pragma once

#include <functional>
#include <memory>

#include "train/source.h"

namespace sana {

struct PrefetchOptions {
    int threads = 2;
    int ahead = 4;           // batches kept ready
    int64_t stride = 1;      // positions between batches of this process: the number of processes
    bool pixels = true;      // false: samples alone
    Source::Kept kept = {};  // samples whose latents are kept need no pixels
    std::function<void(const std::string&)> report =
        {};  // a clip that could not be read; called on any thread
};

// The source must outlive this. A sample whose pixels cannot be read is reported and replaced by its neighbour in the
// batch; a batch without a single readable sample is an InputError of next().
class Prefetch {
public:
    Prefetch(const Source& source, int64_t first_position, PrefetchOptions options = {});
    ~Prefetch();
    Batch next();

private:
    struct State;
    std::unique_ptr<State> state_;
};

// The same for one batch, on the calling thread.
Batch batch_with_pixels(const Source& source, int64_t position,
                        const std::function<void(const std::string&)>& report = {},
                        const Source::Kept& kept = {});

}  // namespace sana
