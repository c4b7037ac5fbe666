// Clips and pictures from files as a source for training.
//     folder   clip.mp4 + clip.txt (the caption), also in sub-folders; pictures too. A clip.json with a list "captions"
//              adds wordings.
//     .jsonl   a line a sample: {"video" or "image" or "path" (also video_path, file_name): file,
//              "caption" or "prompt" or "text": text or list of texts}; files relative to the .jsonl
// Every file is decoded once when the set is opened. What cannot be used (damaged, empty, too short, without a caption) is
// reported and left out; a set without a single usable sample is an InputError.
#pragma once

#include <functional>
#include <memory>
#include <mutex>

#include "train/source.h"

namespace sana {

struct DatasetOptions {
    std::string path;
    // Forms that samples may take. Pictures take those of one frame, and clips do only where there are no others: then
    // their first frame is used.
    std::vector<Bucket> buckets;
    int64_t batch = 1;
    uint64_t seed = 0;
    double fps = 16;      // clips of any rate, also a variable one, are evened out to it
    double held_out = 0;  // share of samples, chosen by a hash of their names, that is not in the set
    int threads = 2;      // for the first look at the files
    std::string index;    // a .json file that remembers the first look; empty: none
    // A picture brought to a size: scaled to cover it, its middle kept.
    std::function<Tensor(const Tensor& picture, int64_t height, int64_t width)> fit;
    std::function<void(const std::string&)> report;
};

// "33x96x160,1x96x160": frames x height x width each. InputError for anything else.
std::vector<Bucket> parse_buckets(const std::string& text);

class Dataset : public Source {
public:
    explicit Dataset(DatasetOptions options);

    int64_t batches_per_epoch() const override { return batches_; }
    Batch batch(int64_t position) const override;
    // The first frames of the clip at the set's rate: frame k is the one that stands at k / fps.
    Tensor video(const Sample& sample, const Bucket& bucket) const override;
    std::string fingerprint() const override;

    // The share that is not in this set, as a set, without another look at the files. InputError when nothing is in it.
    std::unique_ptr<Dataset> held_out() const;

    // For a look at the set: samples in each bucket, and how many were left out.
    std::vector<std::pair<Bucket, int64_t>> counts() const;
    int64_t left_out() const { return left_out_; }

private:
    struct Entry {
        std::string file, id, hash;
        std::vector<std::string> captions;
        size_t bucket = 0;
    };
    Dataset(DatasetOptions options, std::vector<Entry> entries);
    struct Order {
        int64_t epoch = -1;
        std::vector<std::vector<int64_t>> batches;
    };
    std::vector<Entry> listed();
    std::vector<Entry> listed_lines();
    void look_at(std::vector<Entry> found);
    void count_batches();
    std::shared_ptr<const Order> order(int64_t epoch) const;

    DatasetOptions options_;
    std::vector<Entry> entries_, reserved_;
    int64_t batches_ = 0, left_out_ = 0;
    mutable std::mutex mutex_;
    mutable std::shared_ptr<const Order> order_;
};

}  // namespace sana
