// sana encode, sana decode: between video files and latents files.
#include <memory>

#include "apps/embedded_model.h"
#include "apps/frame_queue.h"
#include "apps/run_generation.h"
#include "core/parallel.h"
#include "io/image.h"
#include "io/safetensors.h"
#include "io/text_file.h"
#include "io/video.h"
#include "ops/layout.h"
#include "ops/pointwise.h"
#include "pipeline/video_pipeline.h"

namespace sana::apps {

namespace {

Tensor read_frames(const std::string& path, int64_t most) {
    for (const char* picture : {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}) {
        if (path.ends_with(picture)) {
            Tensor image = read_image(path);
            return image.reshape({1, image.dim(0), image.dim(1), 3});
        }
    }
    return read_video(path, most).frames;
}

void encode(const std::string& in, const Settings& settings, const Common& common) {
    if (settings.integer("threads") > 0) set_threads(static_cast<int>(settings.integer("threads")));
    Console console(common);
    Placement placement = settings.placement();
    ModelFolder model(paths_of_model(settings));
    Tensor frames = read_frames(in, settings.integer("frames"));
    const SizeRules& rules = model.size_rules;
    auto round_down = [&](int64_t n) {
        return std::max(rules.multiple, n / rules.multiple * rules.multiple);
    };
    Size size{settings.is_set("width") ? settings.integer("width") : round_down(frames.dim(2)),
              settings.is_set("height") ? settings.integer("height") : round_down(frames.dim(1))};
    check_size(rules, size);
    int64_t count = valid_frames(rules, frames.dim(0));
    if (count != frames.dim(0))
        console.note(join(frames.dim(0), " frames become ", count, ": the autoencoder takes 1 + ",
                          rules.temporal, "k"));
    Tensor video = empty({1, count, size.height, size.width, 3}, DType::F32);
    for (int64_t t = 0; t < count; ++t) {
        Tensor fitted = from_uint8(fit_image(frames.select(t), size, parse_fit(settings.text("fit"))));
        Tensor slot = video.select(0).outer_slice(t, 1), one = fitted.reshape(slot.shape());
        copy(one, slot);
    }
    Vae vae = model.load_vae(VaeParts::encoder, placement.vae, placement.device);
    Tensor mean = vae.encode(video.to(placement.vae).to(placement.device)).mean;
    Tensor latents = vae.normalise(mean.to(DType::F32)).to(kCpu);
    std::string out = settings.is_set("out") ? settings.text("out") : in + ".latents.safetensors";
    write_latents(out, latents, "", size, settings.number("fps"));
    console.event("done", "\"file\": " + json_string(out));
    console.line(
        join(out, ": latents ", latents.shape(), " of ", count, " frames, ", size.width, " x ", size.height));
}

double metadata_number(const Checkpoint& file, const std::string& key, double fallback) {
    auto it = file.metadata.find(key);
    if (it == file.metadata.end()) return fallback;
    char* end = nullptr;
    double value = std::strtod(it->second.c_str(), &end);
    return *end == '\0' && value >= 1 && value <= 16384 ? value : fallback;
}

void decode(const std::string& in, const Settings& settings, const Common& common) {
    if (settings.integer("threads") > 0) set_threads(static_cast<int>(settings.integer("threads")));
    Console console(common);
    Hooks hooks = console.hooks();
    Placement placement = settings.placement();
    Checkpoint file = read_safetensors(in);
    auto it = file.tensors.find("latents");
    check_input(it != file.tensors.end() && it->second.rank() == 5 && is_float(it->second.dtype()), in,
                ": has no tensor 'latents' [1,Z,t,h,w]; sana generate --keep-latents and sana encode write "
                "such files");
    ModelFolder model(paths_of_model(settings));
    VaeShape shape = shape_of(model.vae);
    const Tensor& stored = it->second;
    check_input(stored.dim(0) == 1 && stored.dim(1) == shape.latent_channels && stored.numel() > 0, in,
                ": latents ", stored.shape(), " do not fit this model's autoencoder of ",
                shape.latent_channels, " channels");
    Tensor latents = channels_last(stored.to(DType::F32));
    double width = static_cast<double>(latents.dim(3) * shape.spatial_factor),
           height = static_cast<double>(latents.dim(2) * shape.spatial_factor);
    Size output{static_cast<int64_t>(metadata_number(file, "width", width)),
                static_cast<int64_t>(metadata_number(file, "height", height))};
    std::string recipe =
        file.metadata.count("recipe") != 0 && !settings.flag("no-metadata") ? file.metadata.at("recipe") : "";
    double fps = settings.is_set("fps") ? settings.number("fps") : metadata_number(file, "fps", 16);
    std::string out = settings.text("out");
    VideoWriter writer(out,
                       {settings.text("format"), fps, static_cast<int>(settings.integer("quality")), recipe});
    int64_t frames = 0;
    FrameQueue queue(writer);
    hooks.frames = [&](const Tensor& chunk) {
        queue.append(chunk);
        frames += chunk.dim(0);
    };
    VideoPipeline pipeline(model, placement);
    pipeline.decode(latents, output, settings.request().tiling, hooks);
    queue.finish();
    double peak = static_cast<double>(peak_resident_bytes());
    console.event("done", join("\"file\": ", json_string(out), ", \"frames\": ", frames, ", \"peak_bytes\": ",
                               static_cast<int64_t>(peak), device_memory_fields(placement.device)));
    console.line(join(out, ": ", frames, " frames, ", output.width, " x ", output.height, ", peak memory ",
                      bytes_text(peak), device_memory_text(placement.device)));
}

void add_command(CLI::App& app, const char* name, const char* what, const char* file_help,
                 const std::vector<std::string>& parameters,
                 std::function<void(const std::string&, const Settings&)> body) {
    CLI::App* command = app.add_subcommand(name, what);
    auto settings = std::make_shared<Settings>();
    auto file = std::make_shared<std::string>();
    command->add_option("file", *file, file_help)->required()->type_name("FILE");
    add_parameters(*command, *settings, parameters);
    command->callback([=] { body(*file, *settings); });
}

}  // namespace

void add_encode(CLI::App& app, Common& common) {
    add_command(
        app, "encode", "Turn a video or picture into a latents file", "Video or picture",
        {"model", "out", "width", "height", "frames", "fit", "fps", "device", "vae-precision", "threads"},
        [&common](const std::string& file, const Settings& settings) { encode(file, settings, common); });
}

void add_decode(CLI::App& app, Common& common) {
    add_command(
        app, "decode", "Turn a latents file into a video", "Latents file (.safetensors)",
        {"model", "out", "format", "fps", "quality", "no-metadata", "device", "vae-precision", "vae-tile",
         "threads"},
        [&common](const std::string& file, const Settings& settings) { decode(file, settings, common); });
}

}  // namespace sana::apps
