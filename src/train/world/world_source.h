// The procedural world as a source for training: clips are drawn when they are asked for, no files, no end.
#pragma once

#include <mutex>
#include <unordered_map>

#include "train/source.h"
#include "train/world/caption.h"
#include "train/world/emphasis.h"

namespace sana::world {

struct WorldSourceOptions {
    uint64_t seed = 0;
    std::vector<Bucket> buckets = {{33, 96, 160}};  // each batch takes one of them, in turn by chance
    int64_t batch = 8;
    double fps = 16;
    Split split = Split::training;  // held-out: combinations and wordings that training never sees
    int wordings = 4;               // captions a clip
    // How many different clips there are: a multiple of batch * shards. After them all come again, in another order and in
    // other words. 0: no clip comes twice.
    int64_t clips = 0;
    // With clips: the batches at positions p, p + shards, p + 2 shards ... see a share of the clips of their own, so that
    // each of several processes makes and keeps what it needs of its share alone.
    int64_t shards = 1;
    // Of the clips, emphasis_share show one of these (see parse_emphasis), drawn evenly, instead of what chance gives.
    std::string emphasis = {};
    double emphasis_share = 0;
};

class WorldSource : public Source {
public:
    explicit WorldSource(WorldSourceOptions options);
    int64_t batches_per_epoch() const override { return options_.clips / options_.batch; }
    Batch batch(int64_t position) const override;
    Tensor video(const Sample& sample, const Bucket& bucket) const override;
    std::string fingerprint() const override;

    Scene scene(int64_t index, const Bucket& bucket) const;

private:
    // The number-th clip that a shard sees.
    int64_t clip_of(int64_t number, int64_t shard) const;
    // The index of the scene that a clip shows: its own, or of its kin the first with what is emphasised.
    int64_t scene_index(int64_t index, const Bucket& bucket) const;
    int64_t find(const Emphasised& wanted, int64_t index, const Bucket& bucket) const;

    WorldSourceOptions options_;
    std::vector<Emphasised> emphasis_;
    mutable std::mutex mutex_;
    mutable std::unordered_map<int64_t, int64_t> found_;  // of clips that come again
};

}  // namespace sana::world
