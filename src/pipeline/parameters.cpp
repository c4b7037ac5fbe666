#include "pipeline/parameters.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "pipeline/fp8_report.h"
#include "pipeline/memory_plan.h"

namespace sana {

namespace {

using Type = ParameterType;

std::vector<ParameterInfo> make_table() {
    std::vector<ParameterInfo> t;
    auto add = [&](std::string group, std::string name, Type type, std::string fallback,
                   std::string help) -> ParameterInfo& {
        ParameterInfo& p = t.emplace_back();
        p.name = std::move(name);
        p.type = type;
        p.fallback = std::move(fallback);
        p.group = std::move(group);
        p.help = std::move(help);
        return p;
    };
    auto range = [](ParameterInfo& p, double low, double high, std::string unit = "") {
        p.low = low;
        p.high = high;
        p.unit = std::move(unit);
    };
    auto model_decides = [](ParameterInfo& p) -> ParameterInfo& {
        p.optional = true;
        return p;
    };
    auto not_in_recipe = [](ParameterInfo& p) -> ParameterInfo& {
        p.recipe = false;
        return p;
    };

    add("model", "model", Type::file, "",
        "Model folder in the diffusers layout (docs/models.md); empty: the embedded model. Defaults that a "
        "folder brings take the place of those below.");
    model_decides(add("model", "transformer", Type::file, "",
                      "Transformer weights from elsewhere: an official .pth or a .safetensors file; the "
                      "folder's config describes it."));
    model_decides(add("model", "tokenizer", Type::file, "",
                      "tokenizer.json, or its folder, when the model folder has none."));
    model_decides(add("model", "prompt-template", Type::file, "",
                      "Instruction put before every prompt: an official YAML (text_encoder.chi_prompt), JSON "
                      "or text file; 'none' for no instruction. Default: what the model folder holds."));

    model_decides(
        add("model", "lora", Type::text, "",
            "LoRA files to add to the transformer, with their weights: FILE:0.8, several with commas "
            "between them (diffusers/PEFT, kohya or ComfyUI names)."));

    add("what to show", "prompt", Type::text, "", "What the video shows.");
    add("what to show", "negative-prompt", Type::text, "",
        "What it should not show. Used when guidance is above 1.");
    model_decides(add("what to show", "image", Type::file, "",
                      "Picture that becomes the first frame (image to video)."));
    add("what to show", "fit", Type::choice, "crop",
        "How a picture of another shape is brought to the video's size: centre-crop, black bars, or "
        "stretched.")
        .choices = {"crop", "pad", "stretch"};
    range(add("what to show", "motion-score", Type::integer, "0",
              "Amount of motion asked for: adds ' motion score: N.' to the prompt; 0 adds nothing. Official "
              "examples use 30."),
          0, 1000);
    add("what to show", "keep-case", Type::flag, "false",
        "Leave the prompt's capitals as they are (the reference pipeline lower-cases prompts).");

    range(add("size", "width", Type::integer, "832", "Width of the video."), 1, 16384, "pixels");
    range(add("size", "height", Type::integer, "480", "Height of the video."), 1, 16384, "pixels");
    add("size", "bins", Type::choice, "auto",
        "Work at the model's nearest trained size and scale back: on; never: off; auto: only when the size "
        "is not one that the model can do.")
        .choices = {"auto", "on", "off"};
    range(add("size", "frames", Type::integer, "81",
              "Length; rounded down to what the autoencoder can do (1 + 4k or 1 + 8k)."),
          1, 1 << 20, "frames");
    range(add("size", "fps", Type::number, "16",
              "Frames a second of the video file; SANA-Video is trained at 16."),
          1, 240, "1/s");

    range(add("sampling", "steps", Type::integer, "50", "Denoising steps."), 1, 1000);
    range(add("sampling", "guidance", Type::number, "6",
              "Classifier-free guidance; 1 or less: none, twice as fast."),
          0, 100);
    auto& sampler = model_decides(
        add("sampling", "sampler", Type::choice, "",
            "dpm (DPM-Solver++ 2M), unipc or euler (flow matching). Default: the model's scheduler."));
    sampler.choices = {"dpm", "unipc", "euler"};
    range(model_decides(add("sampling", "flow-shift", Type::number, "",
                            "Shift of the noise schedule towards noise. Default: the model's scheduler.")),
          0.001, 1000);
    range(
        add("sampling", "step-cache", Type::number, "0",
            "Skip steps whose result can be told from earlier ones (EasyCache): the estimated error that may "
            "gather before a step is computed again. 0.05 skips about a fifth of 50 steps, 0.1 a third; it "
            "changes the video a little. 0: off."),
        0, 10);
    range(add("sampling", "seed", Type::integer, "0", "The same seed gives the same video."), 0,
          9007199254740991.0);
    add("sampling", "rng", Type::choice, "philox",
        "Noise: philox (the same on every device) or torch (what torch.randn gives on the CPU for the seed).")
        .choices = {"philox", "torch"};
    add("sampling", "no-soft-cap", Type::flag, "false",
        "Leave out the text encoder's attention score cap, as SDPA backends of other programs do.");

    not_in_recipe(
        add("machine", "device", Type::device, "auto",
            "Where to compute: cpu, cuda (the first NVIDIA GPU) or cuda:N. auto: the first GPU that "
            "this build can use, without one the CPU."));
    add("machine", "precision", Type::choice, "auto",
        "fp32: transformer and text encoder; bf16: the transformer, while the text encoder keeps the dtype "
        "it is stored in (bf16 in released models); fp8: bf16 with the transformer's large products in "
        "E4M3, half the memory of their weights, faster on Hopper GPUs and as bf16 elsewhere. auto: bf16 on "
        "a GPU, fp32 on the CPU.")
        .choices = {"auto", "fp32", "bf16", "fp8"};
    add("machine", "fp8-keep", Type::text, globs_text(dit_fp8_rule().keep),
        "With --precision fp8: layers that stay bf16, as globs between commas over the names that sana "
        "quantize --report prints ('blocks.0.*,*.cross.q'); empty: none.");
    add("machine", "vae-precision", Type::choice, "auto",
        "Of the autoencoder. auto: bf16 on a GPU, fp32 on the CPU.")
        .choices = {"auto", "fp32", "bf16"};
    auto& threads =
        not_in_recipe(add("machine", "threads", Type::integer, "0", "CPU threads; 0: all cores."));
    range(threads, 0, 1024);
    not_in_recipe(
        add("machine", "vram", Type::text, "auto",
            "Device memory that a run may take: 8G, 12G, 24G, any number of G or M. What does not fit is "
            "cut in pieces, streamed from the host, or moved there; the plan is printed. auto: what is "
            "free on the GPU."));
    range(add("machine", "vae-tile", Type::integer, "0",
              "Spatial tiles of the autoencoder, to save memory; changes the result near tile borders. 0: "
              "off."),
          0, 16384, "pixels");

    not_in_recipe(add("output", "out", Type::file, "out.mp4",
                      "Video file: .mp4 .webm .gif .webp .y4m, or a folder (ending in /) for PNG frames."));
    model_decides(not_in_recipe(add("output", "format", Type::choice, "",
                                    "Format, when the extension does not say it.")))
        .choices = {"mp4", "webm", "gif", "webp", "png", "y4m"};
    range(
        not_in_recipe(add("output", "quality", Type::integer, "18", "Compression: 0 best, 51 worst (CRF).")),
        0, 51);
    not_in_recipe(add("output", "no-metadata", Type::flag, "false", "Do not keep the recipe in the file."));
    not_in_recipe(add("output", "keep-latents", Type::flag, "false",
                      "Keep the latents file (OUT.latents.safetensors) after a successful decode."));
    model_decides(not_in_recipe(add("output", "preview", Type::file, "",
                                    "Folder for a small picture of the video after every step.")));
    return t;
}

double parse_number(const ParameterInfo& p, const std::string& value, const std::string& origin) {
    double number = 0;
    auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    check_input(error == std::errc() && end == value.data() + value.size(), origin, ": '", value,
                "' is not a number; ", p.name, " takes ", p.low, " .. ", p.high);
    check_input(number >= p.low && number <= p.high, origin, ": ", value, " is out of range; ", p.name,
                " takes ", p.low, " .. ", p.high);
    return number;
}

int64_t parse_integer(const ParameterInfo& p, const std::string& value, const std::string& origin) {
    int64_t number = 0;
    auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    bool whole = error == std::errc() && end == value.data() + value.size();
    int64_t low = static_cast<int64_t>(p.low), high = static_cast<int64_t>(p.high);
    check_input(whole && number >= low && number <= high, origin, ": '", value, "' is not what ", p.name,
                " takes: a whole number in ", low, " .. ", high);
    return number;
}

std::string joined(const std::vector<std::string>& words, const char* separator) {
    std::string out;
    for (const std::string& word : words) out += (out.empty() ? "" : separator) + word;
    return out;
}

}  // namespace

const std::vector<ParameterInfo>& parameter_table() {
    static const std::vector<ParameterInfo> table = make_table();
    return table;
}

const ParameterInfo& Settings::info(const std::string& name) const {
    for (const ParameterInfo& p : *table_) {
        if (p.name == name) return p;
    }
    std::string near;
    for (const ParameterInfo& p : *table_) {
        if (!name.empty() &&
            (p.name.find(name) != std::string::npos || name.find(p.name) != std::string::npos))
            near += ' ' + p.name;
    }
    fail_input("there is no parameter '", name, "'",
               near.empty() ? "; sana " + command_ + " --help lists them" : "; do you mean:" + near);
}

void Settings::set(const std::string& name, const std::string& value, const std::string& origin) {
    const ParameterInfo& p = info(name);
    if (p.optional && value.empty()) return;
    switch (p.type) {
        case Type::integer: parse_integer(p, value, origin); break;
        case Type::number: parse_number(p, value, origin); break;
        case Type::flag:
            check_input(value == "true" || value == "false", origin, ": '", value,
                        "' is neither true nor false");
            break;
        case Type::choice:
            check_input(std::find(p.choices.begin(), p.choices.end(), value) != p.choices.end(), origin,
                        ": '", value, "' is not one of ", joined(p.choices, ", "));
            break;
        case Type::device:
            check_input(is_device_name(value), origin, ": '", value,
                        "' is not a device; auto, cpu, cuda or cuda:N is expected");
            break;
        case Type::text:
        case Type::file:
            check_input(value.find('\0') == std::string::npos, origin, ": holds a zero byte");
            check_input(value.size() <= 1000000, origin, ": is longer than a million characters");
            break;
    }
    values_[name] = value;
}

std::string Settings::text(const std::string& name) const {
    auto it = values_.find(name);
    return it == values_.end() ? info(name).fallback : it->second;
}
int64_t Settings::integer(const std::string& name) const {
    return parse_integer(info(name), text(name), name);
}
double Settings::number(const std::string& name) const { return parse_number(info(name), text(name), name); }
bool Settings::flag(const std::string& name) const { return text(name) == "true"; }

std::string Settings::to_json(bool recipe_only) const {
    nlohmann::ordered_json json = nlohmann::ordered_json::object();
    for (const ParameterInfo& p : *table_) {
        if ((recipe_only && !p.recipe) || (p.optional && !given(p.name))) continue;
        // Read again, a default beside what replaces it would be a contradiction.
        if (!p.replaced_by.empty() && given(p.replaced_by) && !is_set(p.name)) continue;
        switch (p.type) {
            case Type::integer: json[p.name] = integer(p.name); break;
            case Type::number: json[p.name] = number(p.name); break;
            case Type::flag: json[p.name] = flag(p.name); break;
            default: json[p.name] = text(p.name);
        }
    }
    return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

std::string Settings::to_toml() const {
    std::string out, group;
    auto json = nlohmann::json::parse(to_json(false));
    for (const ParameterInfo& p : *table_) {
        if (p.group != group) {
            out += join(group.empty() ? "" : "\n", "# ", p.group, '\n');
            group = p.group;
        }
        // A JSON string is a TOML basic string.
        bool there = json.contains(p.name);
        out += join(there ? "" : "# ", p.name, " = ", there ? json[p.name].dump() : "\"\"", "  # ", p.help,
                    '\n');
    }
    return out;
}

void Settings::merge_json(const std::string& text, const std::string& origin) {
    nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
    check_input(json.is_object(), origin, ": an object of parameter names and values is expected");
    for (auto& [name, value] : json.items()) {
        std::string where = origin + ": " + name;
        const ParameterInfo& p = info(name);
        check_input(value.is_string() || value.is_number() || value.is_boolean(), where,
                    " must be a text, a number, true or false");
        std::string words = value.is_string() ? value.get<std::string>() : value.dump();
        if (p.type == Type::integer && value.is_number_float())
            words = std::to_string(static_cast<int64_t>(value.get<double>()));
        if (!is_set(name)) set(name, words, where);
    }
}

ModelPaths Settings::model_paths() const {
    return {text("model"), text("transformer"), text("tokenizer"), text("prompt-template"), text("lora")};
}

Request Settings::request() const {
    Request r;
    r.prompt = text("prompt");
    r.negative_prompt = text("negative-prompt");
    r.fit = parse_fit(text("fit"));
    r.size = {integer("width"), integer("height")};
    std::string bins = text("bins");
    r.binning = bins == "on" ? Binning::on : bins == "off" ? Binning::off : Binning::automatic;
    r.frames = integer("frames");
    r.steps = integer("steps");
    r.guidance = number("guidance");
    if (given("sampler")) r.sampler = parse_sampler(text("sampler"));
    if (given("flow-shift")) r.flow_shift = number("flow-shift");
    r.step_cache = number("step-cache");
    r.motion_score = integer("motion-score");
    r.seed = static_cast<uint64_t>(integer("seed"));
    r.rng = text("rng") == "torch" ? Rng::torch : Rng::philox;
    r.keep_case = flag("keep-case");
    r.soft_cap = !flag("no-soft-cap");
    int64_t tile = integer("vae-tile");
    check_input(tile == 0 || tile >= 64, "vae-tile is ", tile, "; 0 (off) or at least 64 pixels");
    if (tile > 0) r.tiling = {tile / 32 * 32, tile / 32 * 32 * 3 / 4 / 32 * 32};
    if (tile > 0 && r.tiling.stride < 32) r.tiling.stride = 32;
    return r;
}

Placement Settings::placement() const {
    Placement p{.device = find_device(text("device"))};
    auto precision = [&](const std::string& name) {
        std::string word = text(name);
        if (word == "auto") return p.device == kCpu ? DType::F32 : DType::BF16;
        return parse_dtype(word).value();
    };
    bool fp8 = text("precision") == "fp8";
    p.transformer = fp8 ? DType::BF16 : precision("precision");
    if (fp8) {
        p.fp8 = dit_fp8_rule();
        p.fp8.keep = parse_globs(text("fp8-keep"));
    }
    p.vae = precision("vae-precision");
    if (p.transformer != DType::F32) p.text = std::nullopt;
    int64_t vram = parse_vram(text("vram"));
    check_input(vram == 0 || p.device != kCpu, "--vram ", text("vram"),
                " is for GPUs, but this run computes on the CPU; leave it out or take --device cuda");
    p.explain_plan = vram > 0;
    p.budget = vram > 0 ? vram : automatic_budget(p.device);
    return p;
}

Settings Settings::with_precisions(const Placement& placement) const {
    Settings out = *this;
    if (placement.fp8.empty()) out.set("precision", join(placement.transformer), "precision");
    out.set("vae-precision", join(placement.vae), "vae-precision");
    return out;
}

std::string parameter_reference() {
    std::string out =
        "# Parameters of a generation\n\nMade from the program's own table (`sana generate --reference`). "
        "Each is an option of `sana generate` "
        "(`--name value`),\na key of a config file (`--config run.toml` or `.json`), and, unless marked, "
        "part of the recipe kept with a video.\n";
    std::string group;
    for (const ParameterInfo& p : parameter_table()) {
        if (p.group != group) {
            group = p.group;
            out += join("\n## ", group, "\n\n| name | value | default | what |\n| --- | --- | --- | --- |\n");
        }
        std::string value;
        switch (p.type) {
            case Type::text: value = "text"; break;
            case Type::file: value = "path"; break;
            case Type::flag: value = "flag"; break;
            case Type::device: value = "auto, cpu, cuda, cuda:N"; break;
            case Type::choice: value = joined(p.choices, ", "); break;
            case Type::integer:
                value =
                    join("whole number ", static_cast<int64_t>(p.low), " .. ", static_cast<int64_t>(p.high));
                break;
            case Type::number: value = join("number ", p.low, " .. ", p.high); break;
        }
        if (!p.unit.empty()) value += ", " + p.unit;
        std::string fallback = p.optional           ? "the model's"
                               : p.fallback.empty() ? "empty"
                                                    : "`" + p.fallback + "`";
        out += join("| `", p.name, "` | ", value, " | ", fallback, " | ", p.help,
                    p.recipe ? "" : " Not part of the recipe.", " |\n");
    }
    return out;
}

}  // namespace sana
