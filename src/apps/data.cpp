// sana data: drawing clips, training a tokenizer, looking at a dataset.
#include <cstdio>
#include <memory>

#include "apps/console.h"
#include "io/text_file.h"
#include "io/video.h"
#include "pipeline/resize.h"
#include "train/data/bpe.h"
#include "train/data/dataset.h"
#include "train/world/world_source.h"

namespace sana::apps {

namespace {

struct DrawOptions {
    std::string out, format = "mp4";
    int64_t count = 16, first = 0, seed = 0, frames = 33, height = 96, width = 160, wordings = 4;
    double fps = 16;
    bool held_out = false;
};

void draw_clips(const DrawOptions& o, const Common& common) {
    check_input(o.format == "none" || !video_format("clip." + o.format, "").empty(), "format ", o.format);
    Bucket bucket{o.frames, o.height, o.width};
    world::Split split = o.held_out ? world::Split::held_out : world::Split::training;
    make_folders(o.out);
    Console console(common);
    for (int64_t i = 0; i < o.count; ++i) {
        if (interrupted()) throw Cancelled(join("stopped after ", i, " clips; ", o.out, " holds them"));
        int64_t index = o.first + i;
        world::Scene scene = world::make_scene(static_cast<uint64_t>(o.seed), index, bucket, o.fps, split);
        std::vector<std::string> captions;
        for (int64_t n = 0; n < o.wordings; ++n)
            captions.push_back(world::make_caption(scene, n, {.wording = split}).text);
        char name[32];
        std::snprintf(name, sizeof name, "/clip_%05lld", static_cast<long long>(index + 1));
        std::string base = o.out + name;
        // The caption comes last: a clip that has one is whole.
        if (o.format != "none") {
            VideoWriter writer(base + (o.format == "png" ? "" : "." + o.format),
                               {.format = o.format, .fps = o.fps, .recipe = {}});
            writer.append(world::render(scene, bucket));
            writer.finish();
        }
        write_text_file(base + ".json", world::truth_json(scene, bucket, o.fps, captions));
        write_text_file(base + ".txt", captions[0] + "\n");
        if (!common.json && !common.quiet && o.count > 20 && (i + 1) % (o.count / 10) == 0)
            console.note(join(i + 1, " of ", o.count, " clips"));
    }
    console.event("done", join("\"folder\": ", json_string(o.out), ", \"clips\": ", o.count));
    console.line(join(o.out, ": ", o.count, " clips of ", o.frames, " frames, ", o.width, " x ", o.height,
                      ", seed ", o.seed));
}

void add_draw(CLI::App& data, Common& common) {
    CLI::App* command = data.add_subcommand(
        "draw", "Draw clips of a small world of moving shapes, with captions and the truth about each");
    command->footer(
        "Writes clip_00001.mp4, .txt (a caption) and .json (the truth in every frame, more wordings). Clip n "
        "of a seed\n"
        "is always the same. Without FFmpeg: --format y4m. sana train draws the same clips itself, without "
        "files.\n"
        "  sana data draw --out clips --count 100\n"
        "  sana data draw --out test --count 20 --held-out --frames 49 --height 160 --width 96");
    auto o = std::make_shared<DrawOptions>();
    command->add_option("--out", o->out, "Folder for the clips")->required()->type_name("FOLDER");
    command->add_option("--count", o->count, "How many clips (default 16)")
        ->check(CLI::Range(int64_t{1}, int64_t{100000000}));
    command->add_option("--first", o->first, "Number of the first one, to go on where an earlier run ended")
        ->check(CLI::Range(int64_t{0}, int64_t{1} << 40));
    command->add_option("--seed", o->seed, "Another seed, other clips")
        ->check(CLI::Range(int64_t{0}, int64_t{1} << 53));
    command->add_option("--frames", o->frames, "Length; 1: pictures (default 33)")
        ->check(CLI::Range(int64_t{1}, int64_t{10000}));
    command->add_option("--height", o->height, "Pixels (default 96)")
        ->check(CLI::Range(int64_t{16}, int64_t{8192}));
    command->add_option("--width", o->width, "Pixels (default 160)")
        ->check(CLI::Range(int64_t{16}, int64_t{8192}));
    command->add_option("--fps", o->fps, "Frames a second (default 16)")->check(CLI::Range(1.0, 240.0));
    command->add_option("--wordings", o->wordings, "Captions a clip, in its .json (default 4)")
        ->check(CLI::Range(int64_t{1}, int64_t{1000}));
    command
        ->add_option("--format", o->format,
                     "mp4, webm, gif, webp, y4m, png (a folder a clip) or none: truth and captions alone")
        ->check(CLI::IsMember({"mp4", "webm", "gif", "webp", "y4m", "png", "none"}));
    command->add_flag("--held-out", o->held_out, "Combinations and wordings that are kept from training");
    command->callback([=, &common] { draw_clips(*o, common); });
}

void add_tokenizer(CLI::App& data, Common& common) {
    CLI::App* command =
        data.add_subcommand("tokenizer", "Train a tokenizer on captions of drawn clips and English words");
    command->footer(
        "Byte-pair encoding with byte fallback, in Gemma's form. The same options give the same file.\n"
        "  sana data tokenizer --out model/tokenizer/tokenizer.json\n"
        "  sana data tokenizer --out tokenizer.json --size 8000 --text captions.txt --captions 0");
    struct Options {
        std::string out;
        int64_t size = 4096, captions = 20000, seed = 0;
        std::vector<std::string> texts;
        bool no_words = false;
    };
    auto o = std::make_shared<Options>();
    command->add_option("--out", o->out, "tokenizer.json to write")->required()->type_name("FILE");
    command->add_option("--size", o->size, "At most this many pieces (default 4096)")
        ->check(CLI::Range(int64_t{400}, int64_t{1000000}));
    command->add_option("--captions", o->captions, "Captions of drawn clips to learn from (default 20000)")
        ->check(CLI::Range(int64_t{0}, int64_t{10000000}));
    command->add_option("--seed", o->seed, "Seed of these clips")
        ->check(CLI::Range(int64_t{0}, int64_t{1} << 53));
    command->add_option("--text", o->texts, "Text files to learn from as well")->type_name("FILE");
    command->add_flag("--no-words", o->no_words, "Without the list of everyday English words");
    command->callback([=, &common] {
        WordCounts counts;
        for (int64_t i = 0; i < o->captions; ++i) {
            world::Scene scene = world::make_scene(static_cast<uint64_t>(o->seed), i, {33, 96, 160}, 16,
                                                   world::Split::training);
            counts.add(world::make_caption(scene, 0).text);
        }
        // Twice is what a merge asks for; a word stands after a space and at the start of a text.
        if (!o->no_words) {
            counts.add(common_words(), 4);
            std::string lines = common_words();
            for (char& c : lines) c = c == ' ' ? '\n' : c;
            counts.add(lines, 2);
        }
        for (const std::string& path : o->texts) counts.add(read_text_file(path));
        std::string folder = parent_folder(o->out);
        make_folders(folder);
        write_text_file(o->out, train_tokenizer(counts, o->size));
        Console console(common);
        int64_t pieces = Tokenizer::load(o->out).size();
        console.event("done", join("\"file\": ", json_string(o->out), ", \"pieces\": ", pieces));
        console.line(join(o->out, ": ", pieces, " pieces from ", counts.words().size(), " different words"));
    });
}

void add_check(CLI::App& data, Common& common) {
    CLI::App* command =
        data.add_subcommand("check", "Look at every file of a dataset and say what can be used");
    command->footer(
        "A folder of clip.mp4 + clip.txt (pictures too), or a .jsonl of {\"video\": FILE, \"caption\": "
        "TEXT}.\n"
        "  sana data check clips\n"
        "  sana data check set.jsonl --buckets 81x480x832,81x832x480,1x480x832");
    struct Options {
        std::string path, buckets = "33x96x160,1x96x160", index;
        double fps = 16;
        int threads = 2;
    };
    auto o = std::make_shared<Options>();
    command->add_option("path", o->path, "Folder or .jsonl file")->required()->type_name("PATH");
    command
        ->add_option("--buckets", o->buckets,
                     "Forms that samples may take, frames x height x width (default 33x96x160,1x96x160)")
        ->type_name("TxHxW,...");
    command->add_option("--fps", o->fps, "Frames a second that clips are evened out to (default 16)")
        ->check(CLI::Range(0.1, 240.0));
    command->add_option("--index", o->index, "A .json file that remembers what was seen, for the next time")
        ->type_name("FILE");
    command->add_option("--threads", o->threads, "Files looked at side by side (default 2)")
        ->check(CLI::Range(1, 256));
    command->callback([=, &common] {
        Console console(common);
        DatasetOptions options;
        options.path = o->path;
        options.buckets = parse_buckets(o->buckets);
        options.fps = o->fps;
        options.threads = o->threads;
        options.index = o->index;
        options.fit = [](const Tensor& picture, int64_t height, int64_t width) {
            return fit_image(picture, {width, height}, Fit::crop);
        };
        std::vector<std::string> reports;
        options.report = [&](const std::string& text) { reports.push_back(text); };
        try {
            Dataset set(options);
            for (const std::string& text : reports) console.note(text);
            for (const auto& [bucket, count] : set.counts())
                console.line(join(bucket.frames, " x ", bucket.height, " x ", bucket.width, ": ", count,
                                  count == 1 ? " sample" : " samples"));
            console.line(join(set.left_out(), " left out; ", set.fingerprint()));
            console.event("dataset", join("\"samples\": ", json_string(set.fingerprint()),
                                          ", \"left_out\": ", set.left_out()));
        } catch (const InputError&) {
            for (const std::string& text : reports) console.note(text);
            throw;
        }
    });
}

}  // namespace

void add_data(CLI::App& app, Common& common) {
    CLI::App* data = app.add_subcommand("data", "Make and check what models learn from");
    data->require_subcommand(1);
    add_draw(*data, common);
    add_tokenizer(*data, common);
    add_check(*data, common);
}

}  // namespace sana::apps
