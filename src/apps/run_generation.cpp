#include "apps/run_generation.h"

#include <unistd.h>

#include <cstdio>

#include "apps/embedded_model.h"
#include "apps/frame_queue.h"
#include "apps/recipe.h"
#include "core/parallel.h"
#include "io/image.h"
#include "io/safetensors.h"
#include "io/text_file.h"
#include "io/video.h"
#include "ops/layout.h"
#include "pipeline/preview.h"

namespace sana::apps {

namespace {

// Up to eight frames of a clip side by side.
Tensor strip(const Tensor& frames) {
    int64_t n = std::min<int64_t>(8, frames.dim(0));
    std::vector<Tensor> columns;
    for (int64_t i = 0; i < n; ++i)
        columns.push_back(frames.select(n == 1 ? 0 : i * (frames.dim(0) - 1) / (n - 1)));
    return concat(columns, 1);
}

}  // namespace

void write_latents(const std::string& path, const Tensor& latents, const std::string& recipe, Size output,
                   double fps) {
    write_safetensors(path, {{"latents", channels_first(latents)}},
                      {{"recipe", recipe},
                       {"width", join(output.width)},
                       {"height", join(output.height)},
                       {"fps", join(fps)}});
}

void run_generation(Settings settings, const Common& common) {
    auto start = std::chrono::steady_clock::now();
    if (settings.integer("threads") > 0) set_threads(static_cast<int>(settings.integer("threads")));
    Console console(common);
    Hooks hooks = console.hooks();
    Placement placement = settings.placement();
    ModelFolder model(paths_of_model(settings));
    model.note = hooks.note;
    take_defaults(settings, model);
    if (std::string text = advice(model, settings.text("prompt")); !text.empty()) console.note(text);
    VideoPipeline pipeline(model, placement);
    Request request = settings.request();
    if (settings.given("image")) request.image = read_image(settings.text("image"));
    Plan plan = pipeline.plan(request);  // what it adjusts is said when the run begins

    std::string out = settings.text("out"),
                recipe = make_recipe(settings.with_precisions(placement), plan, pipeline);
    VideoWriterOptions options{settings.text("format"), settings.number("fps"),
                               static_cast<int>(settings.integer("quality")),
                               settings.flag("no-metadata") ? std::string() : recipe};
    VideoWriter writer(out, options);  // before the work: a place that cannot be written to is an error now
    std::string latents_path =
        (out.ends_with("/") ? out.substr(0, out.size() - 1) : out) + ".latents.safetensors";
    bool latents_kept = false;

    std::optional<LatentPreview> preview;
    if (settings.given("preview")) {
        make_folders(settings.text("preview"));
        VaeShape shape = shape_of(model.vae);
        preview.emplace(model.load_vae(VaeParts::decoder, DType::F32, placement.device), shape);
        make_room(placement.device);
        hooks.preview = [&, scale = std::max<int64_t>(1, shape.spatial_factor / 4)](int64_t step,
                                                                                    const Tensor& clean) {
            char name[32];
            std::snprintf(name, sizeof name, "/step_%04lld.png", static_cast<long long>(step));
            std::string path = settings.text("preview") + name;
            write_png(path, strip(preview->frames(clean, scale)));
            console.event("preview", "\"file\": " + json_string(path));
        };
    }
    hooks.latents = [&](const Tensor& latents) {
        write_latents(latents_path, latents, recipe, plan.output, options.fps);
        latents_kept = true;
    };
    int64_t frames = 0;
    FrameQueue queue(writer);
    hooks.frames = [&](const Tensor& chunk) {
        queue.append(chunk);
        frames += chunk.dim(0);
    };
    try {
        pipeline.generate(request, hooks);
        queue.finish();
    } catch (const std::exception&) {
        if (latents_kept)
            console.note(join("the finished latents are kept: sana decode '", latents_path, "' --model '",
                              model.paths().folder, "' --out '", out, "'"));
        throw;
    }
    if (!settings.flag("keep-latents")) unlink(latents_path.c_str());
    double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    double peak = static_cast<double>(peak_resident_bytes());
    console.event("done", join("\"file\": ", json_string(out), ", \"frames\": ", frames,
                               ", \"width\": ", plan.output.width, ", \"height\": ", plan.output.height,
                               ", \"seconds\": ", seconds, ", \"peak_bytes\": ", static_cast<int64_t>(peak),
                               device_memory_fields(placement.device)));
    console.line(join(out, ": ", frames, " frames, ", plan.output.width, " x ", plan.output.height, ", seed ",
                      settings.integer("seed"), ", ", duration_text(seconds), ", peak memory ",
                      bytes_text(peak), device_memory_text(placement.device)));
}

}  // namespace sana::apps
