#include "train/world/world_source.h"

#include <numeric>

#include "core/hash.h"

namespace sana::world {

namespace {

// Raised when the same seed and index no longer give the same pixels or captions.
constexpr int kEdition = 1;

// Scenes of indices this far apart are kin; so many are looked through for what is emphasised.
constexpr int64_t kKin = int64_t{1} << 32, kTries = 20000;

}  // namespace

WorldSource::WorldSource(WorldSourceOptions options)
    : options_(std::move(options)), emphasis_(parse_emphasis(options_.emphasis)) {
    check_input(options_.batch >= 1 && !options_.buckets.empty() && options_.wordings >= 1,
                "a source of drawn clips needs a batch size, a bucket and a wording, each at least 1");
    check_input(options_.shards >= 1, "clips are shared among ", options_.shards, " shards; 1 is the least");
    check_input(options_.clips >= 0 && options_.clips % (options_.batch * options_.shards) == 0,
                "there are to be ", options_.clips, " different clips, which is no multiple of the ",
                options_.batch * options_.shards, " of a step of all batches");
    check_input(options_.clips == 0 || options_.buckets.size() == 1,
                "drawn clips that come again (clips = ", options_.clips, ") have one size, and there are ",
                options_.buckets.size(), " buckets; give one of them alone, or leave out clips");
    check_input(emphasis_.empty() == (options_.emphasis_share == 0),
                "emphasis and emphasis-share belong together, and ",
                emphasis_.empty() ? "emphasis" : "emphasis-share", " is missing");
    for (const Bucket& bucket : options_.buckets) {
        make_scene(0, 0, bucket, options_.fps, options_.split);
        for (const Emphasised& e : emphasis_) find(e, 0, bucket);
    }
}

Scene WorldSource::scene(int64_t index, const Bucket& bucket) const {
    return make_scene(options_.seed, scene_index(index, bucket), bucket, options_.fps, options_.split);
}

int64_t WorldSource::find(const Emphasised& wanted, int64_t index, const Bucket& bucket) const {
    for (int64_t k = 1; k <= kTries; ++k) {
        int64_t kin = index + k * kKin;
        if (wanted.shown_by(make_scene(options_.seed, kin, bucket, options_.fps, options_.split))) return kin;
    }
    throw InputError(join("emphasis: of ", kTries, " scenes of ", bucket.frames, " frames of ", bucket.width,
                          " x ", bucket.height, " none shows what is asked for; ask for less at once"));
}

int64_t WorldSource::scene_index(int64_t index, const Bucket& bucket) const {
    if (emphasis_.empty()) return index;
    Draws draws(options_.seed, hash_of(join("emphasis ", index)));
    if (!draws.chance(options_.emphasis_share)) return index;
    const Emphasised& wanted = draws.of(emphasis_);
    if (options_.clips == 0) return find(wanted, index, bucket);
    {
        std::lock_guard lock(mutex_);
        auto it = found_.find(index);
        if (it != found_.end()) return it->second;
    }
    int64_t kin = find(wanted, index, bucket);
    std::lock_guard lock(mutex_);
    return found_[index] = kin;
}

// A pass goes through the shard's clips in steps that have no divisor in common with their number.
int64_t WorldSource::clip_of(int64_t number, int64_t shard) const {
    int64_t clips = options_.clips / options_.shards;
    if (clips == 0) return number;
    Draws draws(options_.seed, hash_of(join("pass ", number / clips)));
    int64_t step = 0, start = draws.below(static_cast<int>(clips));
    do {
        step = 1 + draws.below(static_cast<int>(clips));
    } while (std::gcd(step, clips) != 1);
    return (number % clips * step + start) % clips * options_.shards + shard;
}

Batch WorldSource::batch(int64_t position) const {
    Batch batch;
    Draws draws(options_.seed, hash_of(join("bucket ", position)));
    batch.bucket = draws.of(options_.buckets);
    int64_t shards = options_.clips == 0 ? 1 : options_.shards;
    for (int64_t i = 0; i < options_.batch; ++i) {
        Sample s;
        int64_t number = position / shards * options_.batch + i;
        s.index = clip_of(number, position % shards);
        int64_t first_wording =
            options_.clips == 0 ? 0 : number / (options_.clips / shards) * options_.wordings;
        Scene scene = this->scene(s.index, batch.bucket);
        s.id = join("drawn clip ", s.index, " of seed ", static_cast<int64_t>(options_.seed));
        s.fps = options_.fps;
        s.lasting = options_.clips > 0;
        s.hash = sha256_hex(join("world ", int64_t{kEdition}, ' ', static_cast<int64_t>(options_.seed), ' ',
                                 scene.index, ' ', options_.split == Split::held_out, ' ', options_.fps));
        for (int n = 0; n < options_.wordings; ++n)
            s.captions.push_back(make_caption(scene, first_wording + n, {.wording = options_.split}).text);
        s.caption = s.captions[static_cast<size_t>(draws.below(options_.wordings))];
        batch.samples.push_back(std::move(s));
    }
    return batch;
}

Tensor WorldSource::video(const Sample& sample, const Bucket& bucket) const {
    return render(scene(sample.index, bucket), bucket);
}

std::string WorldSource::fingerprint() const {
    std::string text =
        join("world edition ", int64_t{kEdition}, ", seed ", static_cast<int64_t>(options_.seed), ", ",
             options_.split == Split::held_out ? "held out" : "training", ", batch ", options_.batch, ", ",
             options_.fps, " fps, ", int64_t{options_.wordings}, " wordings, buckets");
    if (options_.clips > 0) text = join(options_.clips, " clips of ", text);
    if (options_.clips > 0 && options_.shards > 1) text = join(options_.shards, " shards of ", text);
    if (!emphasis_.empty())
        text += join(", ", options_.emphasis_share, " of them with emphasis on ", options_.emphasis);
    for (const Bucket& b : options_.buckets) text += join(' ', b.frames, 'x', b.height, 'x', b.width);
    return text;
}

}  // namespace sana::world
