#include "train/data/dataset.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "core/hash.h"
#include "io/text_file.h"
#include "io/video.h"
#include "train/data/first_look.h"
#include "train/world/world.h"

namespace sana {

namespace {

namespace fs = std::filesystem;
using world::Draws;
using world::hash_of;

std::string one_line(const std::string& text) {
    std::istringstream words(text);
    std::string out, word;
    while (words >> word) out += (out.empty() ? "" : " ") + word;
    return out;
}

// Texts of a JSON value: one, or a list.
std::vector<std::string> texts_of(const nlohmann::json& value) {
    std::vector<std::string> out;
    auto add = [&](const nlohmann::json& v) {
        if (v.is_string() && !one_line(v.get<std::string>()).empty())
            out.push_back(one_line(v.get<std::string>()));
    };
    if (value.is_array()) {
        for (const auto& v : value) add(v);
    } else {
        add(value);
    }
    return out;
}

template <class T>
void shuffle(std::vector<T>& list, Draws& draws) {
    for (size_t i = list.size(); i > 1; --i)
        std::swap(list[i - 1], list[static_cast<size_t>(draws.below(static_cast<int>(i)))]);
}

}  // namespace

std::vector<Bucket> parse_buckets(const std::string& text) {
    std::vector<Bucket> out;
    std::istringstream parts(text);
    std::string part;
    while (std::getline(parts, part, ',')) {
        Bucket bucket;
        char first = 0, second = 0, rest = 0;
        std::istringstream in(part);
        in >> bucket.frames >> first >> bucket.height >> second >> bucket.width;
        bool good = !in.fail() && !(in >> rest) && first == 'x' && second == 'x';
        check_input(good && bucket.frames >= 1 && bucket.height >= 1 && bucket.width >= 1 &&
                        bucket.frames <= 1 << 20 && bucket.height <= 16384 && bucket.width <= 16384,
                    "'", part, "' is no bucket; frames x height x width is expected, as in 33x96x160");
        out.push_back(bucket);
    }
    check_input(!out.empty(), "no bucket given; frames x height x width is expected, as in 33x96x160");
    return out;
}

Dataset::Dataset(DatasetOptions options) : options_(std::move(options)) {
    check(options_.fit != nullptr, "a dataset needs a way to bring pictures to a size");
    if (!options_.report) options_.report = [](const std::string&) {};
    check_input(options_.batch >= 1 && !options_.buckets.empty() && options_.fps > 0, options_.path,
                ": a dataset needs a batch size, a frame rate and at least one bucket");
    check_input(file_exists(options_.path), options_.path, ": no such folder or .jsonl file");
    look_at(is_folder(options_.path) ? listed() : listed_lines());
    check_input(!entries_.empty() || !reserved_.empty(), options_.path, ": holds no usable sample (",
                left_out_, " left out)");
    check_input(!entries_.empty(), options_.path, ": all ", reserved_.size(),
                " usable samples are in the held-out share of ", options_.held_out, "; make it smaller");
    count_batches();
}

Dataset::Dataset(DatasetOptions options, std::vector<Entry> entries)
    : options_(std::move(options)), entries_(std::move(entries)) {
    count_batches();
}

std::unique_ptr<Dataset> Dataset::held_out() const {
    check_input(!reserved_.empty(), options_.path, ": of ", entries_.size(),
                " usable samples none is in the held-out share of ", options_.held_out,
                "; make it larger, or name data for the held-out loss");
    return std::unique_ptr<Dataset>(new Dataset(options_, reserved_));
}

void Dataset::count_batches() {
    std::vector<int64_t> sizes(options_.buckets.size());
    for (const Entry& entry : entries_) ++sizes[entry.bucket];
    for (int64_t size : sizes) batches_ += (size + options_.batch - 1) / options_.batch;
}

std::vector<Dataset::Entry> Dataset::listed() {
    std::vector<Entry> out;
    std::error_code error;
    for (const auto& item : fs::recursive_directory_iterator(
             options_.path, fs::directory_options::skip_permission_denied, error)) {
        std::string file = item.path().string();
        if (!is_picture_name(file) && !is_video_name(file)) continue;
        Entry entry;
        entry.file = file;
        entry.id = fs::relative(item.path(), options_.path).string();
        std::string base = (item.path().parent_path() / item.path().stem()).string();
        try {
            if (file_exists(base + ".txt")) entry.captions = texts_of(read_text_file(base + ".txt", 1 << 20));
            if (file_exists(base + ".json")) {
                nlohmann::json json = nlohmann::json::parse(read_json_text(base + ".json"));
                if (json.is_object() && json.contains("captions"))
                    for (const std::string& text : texts_of(json["captions"]))
                        if (std::find(entry.captions.begin(), entry.captions.end(), text) ==
                            entry.captions.end())
                            entry.captions.push_back(text);
            }
        } catch (const InputError& problem) {
            options_.report(problem.what());
        }
        out.push_back(std::move(entry));
    }
    check_input(!error, options_.path, ": cannot be listed: ", error.message());
    std::sort(out.begin(), out.end(), [](const Entry& a, const Entry& b) { return a.id < b.id; });
    return out;
}

std::vector<Dataset::Entry> Dataset::listed_lines() {
    std::vector<Entry> out;
    std::istringstream lines(read_text_file(options_.path, int64_t{1} << 31));
    std::string line;
    for (int64_t number = 1; std::getline(lines, line); ++number) {
        if (one_line(line).empty()) continue;
        nlohmann::json json = nlohmann::json::parse(line, nullptr, false);
        Entry entry;
        if (json.is_object()) {
            for (const char* key : {"video", "image", "path", "video_path", "image_path", "file_name"})
                if (entry.id.empty() && json.contains(key) && json[key].is_string())
                    entry.id = json[key].get<std::string>();
            for (const char* key : {"caption", "prompt", "text", "captions"})
                if (entry.captions.empty() && json.contains(key)) entry.captions = texts_of(json[key]);
        }
        if (entry.id.empty()) {
            options_.report(join(options_.path, ": line ", number,
                                 " names no file (\"video\": \"clip.mp4\") and is left out"));
            ++left_out_;
            continue;
        }
        entry.file = (fs::path(parent_folder(options_.path)) / entry.id).string();
        out.push_back(std::move(entry));
    }
    return out;
}

void Dataset::look_at(std::vector<Entry> found) {
    FirstLook first_look(options_.index);
    std::vector<MediaFacts> facts(found.size());
    std::atomic<size_t> next{0};
    std::vector<std::thread> workers;
    for (int w = 0; w < std::max(1, options_.threads); ++w)
        workers.emplace_back([&] {
            for (size_t i = next++; i < found.size(); i = next++) {
                try {
                    facts[i] = first_look.look(found[i].file);
                } catch (const std::exception& error) {
                    facts[i].error = found[i].file + ": " + error.what();
                }
            }
        });
    for (std::thread& worker : workers) worker.join();
    try {
        first_look.save();
    } catch (const InputError& error) {
        options_.report(join("the index of ", options_.path, " is not kept: ", error.what()));
    }
    bool has_clips = std::any_of(options_.buckets.begin(), options_.buckets.end(),
                                 [](const Bucket& bucket) { return bucket.frames > 1; });
    for (size_t i = 0; i < found.size(); ++i) {
        Entry& entry = found[i];
        const MediaFacts& f = facts[i];
        auto leave_out = [&](const std::string& why) {
            options_.report(why + "; left out");
            ++left_out_;
        };
        if (!f.error.empty()) {
            leave_out(f.error);
            continue;
        }
        if (entry.captions.empty()) {
            leave_out(entry.file +
                      ": has no caption (a .txt of the same name beside it, or \"caption\" in the .jsonl)");
            continue;
        }
        int64_t frames = is_picture_name(entry.file) || f.frames == 1
                             ? 1
                             : 1 + std::llround(std::floor(f.seconds * options_.fps + 0.01));
        // The nearest shape among those that are short enough, then the longest.
        double best = 1e9;
        int64_t shortest = INT64_MAX;
        size_t chosen = options_.buckets.size();
        for (size_t b = 0; b < options_.buckets.size(); ++b) {
            const Bucket& bucket = options_.buckets[b];
            shortest = std::min(shortest, bucket.frames);
            if (bucket.frames > frames || (frames > 1 && bucket.frames == 1 && has_clips)) continue;
            double off = std::abs(std::log(static_cast<double>(f.width * bucket.height) /
                                           static_cast<double>(f.height * bucket.width)));
            bool better =
                off < best - 1e-9 || (off < best + 1e-9 && bucket.frames > options_.buckets[chosen].frames);
            if (!better) continue;
            best = off;
            chosen = b;
        }
        if (chosen == options_.buckets.size()) {
            leave_out(join(entry.file, ": has ", frames, frames == 1 ? " frame" : " frames", " at ",
                           options_.fps, " a second, the shortest bucket has ", shortest));
            continue;
        }
        if (f.variable)
            options_.report(
                join(entry.file, ": has a variable frame rate; evened out to ", options_.fps, " a second"));
        entry.hash = f.hash;
        entry.bucket = chosen;
        bool reserved = static_cast<double>(hash_of(entry.id) % 10000) < options_.held_out * 10000;
        (reserved ? reserved_ : entries_).push_back(std::move(entry));
    }
}

std::shared_ptr<const Dataset::Order> Dataset::order(int64_t epoch) const {
    std::lock_guard lock(mutex_);
    if (order_ && order_->epoch == epoch) return order_;
    auto made = std::make_shared<Order>();
    made->epoch = epoch;
    for (size_t b = 0; b < options_.buckets.size(); ++b) {
        std::vector<int64_t> members;
        for (size_t i = 0; i < entries_.size(); ++i)
            if (entries_[i].bucket == b) members.push_back(static_cast<int64_t>(i));
        if (members.empty()) continue;
        Draws draws(options_.seed, hash_of(join("epoch ", epoch, " bucket ", static_cast<int64_t>(b))));
        shuffle(members, draws);
        for (size_t start = 0; start < members.size(); start += static_cast<size_t>(options_.batch)) {
            // The last one is filled up from the start.
            std::vector<int64_t> batch;
            for (int64_t k = 0; k < options_.batch; ++k)
                batch.push_back(members[(start + static_cast<size_t>(k)) % members.size()]);
            made->batches.push_back(std::move(batch));
        }
    }
    Draws draws(options_.seed, hash_of(join("epoch ", epoch)));
    shuffle(made->batches, draws);
    order_ = made;
    return made;
}

Batch Dataset::batch(int64_t position) const {
    check(position >= 0, "batch ", position);
    auto order = this->order(position / batches_);
    Batch batch;
    Draws draws(options_.seed, hash_of(join("captions ", position)));
    for (int64_t i : order->batches[static_cast<size_t>(position % batches_)]) {
        const Entry& entry = entries_[static_cast<size_t>(i)];
        batch.bucket = options_.buckets[entry.bucket];
        Sample s;
        s.id = entry.id;
        s.hash = entry.hash;
        s.captions = entry.captions;
        s.caption = draws.of(entry.captions);
        s.fps = options_.fps;
        s.index = i;
        s.lasting = true;
        batch.samples.push_back(std::move(s));
    }
    return batch;
}

Tensor Dataset::video(const Sample& sample, const Bucket& bucket) const {
    const std::string& file = entries_[static_cast<size_t>(sample.index)].file;
    Tensor out = empty({bucket.frames, bucket.height, bucket.width, 3}, DType::U8), shown;
    int64_t filled = 0, each = bucket.height * bucket.width * 3;
    auto put = [&] {
        std::memcpy(out.data<uint8_t>() + filled * each, shown.raw(), static_cast<size_t>(each));
        ++filled;
    };
    // A frame stands until the next one comes; half a millisecond more is the rounding of time stamps.
    read_frames(file, [&](const Tensor& frame, double time) {
        while (shown.defined() && filled < bucket.frames &&
               static_cast<double>(filled) / options_.fps < time - 5e-4)
            put();
        if (filled == bucket.frames) return false;
        shown = options_.fit(frame, bucket.height, bucket.width).contiguous();
        return true;
    });
    if (filled < bucket.frames) put();
    check_input(filled == bucket.frames, file, ": has become too short: ", filled, " frames, ", bucket.frames,
                " are needed");
    return out;
}

std::string Dataset::fingerprint() const {
    Sha256 hash;
    auto add = [&](const std::string& text) { hash.update(text.data(), text.size() + 1); };
    add(join(static_cast<int64_t>(options_.seed), ' ', options_.batch, ' ', options_.fps));
    for (const Bucket& b : options_.buckets) add(join(b.frames, 'x', b.height, 'x', b.width));
    for (const Entry& entry : entries_) {
        add(entry.hash);
        for (const std::string& caption : entry.captions) add(caption);
    }
    return join("dataset of ", entries_.size(), " samples, ", hash.hex().substr(0, 16));
}

std::vector<std::pair<Bucket, int64_t>> Dataset::counts() const {
    std::vector<std::pair<Bucket, int64_t>> out;
    for (const Bucket& bucket : options_.buckets) out.emplace_back(bucket, 0);
    for (const Entry& entry : entries_) ++out[entry.bucket].second;
    return out;
}

}  // namespace sana
