// What the trainer asks of data: batches by their position in an order that never changes, so that a resumed run goes on
// with exactly the samples that an uninterrupted one would have seen. Nothing has to be stored but the position.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/tensor.h"

namespace sana {

// One shape of video: every sample of a batch has it. A picture has one frame.
struct Bucket {
    int64_t frames = 0, height = 0, width = 0;
    bool operator==(const Bucket&) const = default;
};

struct Sample {
    std::string id;    // for messages and records: the file, or the seed and number of a drawn clip
    std::string hash;  // SHA-256 of what the pixels are made of: the key of cached latents, with the bucket
    std::string caption;                // the wording for this visit
    std::vector<std::string> captions;  // every wording there is; the first is the plainest
    double fps = 16;
    int64_t index = 0;     // where the source finds it again
    bool lasting = false;  // comes again in every epoch: what is made of it is worth keeping
};

struct Batch {
    Bucket bucket;
    std::vector<Sample> samples;
    std::vector<Tensor> videos;  // [T,H,W,3] uint8 each, filled by Prefetch or by Source::video()
    // [t,h,w,Z] fp32 each, where a cache holds them; such a sample has no video. Empty without a cache.
    std::vector<Tensor> latents;
};

// All functions may be called from several threads at once. Equal construction gives equal answers on every machine.
class Source {
public:
    virtual ~Source() = default;

    // Latents of a sample that are kept, or none; may be called from several threads.
    using Kept = std::function<Tensor(const Sample&, const Bucket&)>;

    // Batches of one pass over the data; 0: endless, no sample comes twice.
    virtual int64_t batches_per_epoch() const = 0;

    // The batch at a position 0, 1, 2 ... of the endless order; epoch = position / batches_per_epoch(), and each epoch has
    // its own permutation and its own choice of wordings. Always of full size. Cheap: no pixels.
    // Several processes take positions step * processes + rank.
    virtual Batch batch(int64_t position) const = 0;

    // The pixels of one sample, drawn or decoded now: [T,H,W,3] uint8 of the bucket's shape.
    // InputError when the file cannot be read any more.
    virtual Tensor video(const Sample& sample, const Bucket& bucket) const = 0;

    // Names the data and every setting that the order depends on. A run that resumes compares it with its checkpoint's.
    virtual std::string fingerprint() const = 0;
};

}  // namespace sana
