#include "apps/train_table.h"

namespace sana::apps {

namespace {

using Type = ParameterType;

std::vector<ParameterInfo> make_table() {
    std::vector<ParameterInfo> t;
    auto add = [&](const char* group, const char* name, Type type, const char* fallback,
                   const char* help) -> ParameterInfo& {
        ParameterInfo& p = t.emplace_back();
        p.group = group;
        p.name = name;
        p.type = type;
        p.fallback = fallback;
        p.help = help;
        p.recipe = false;
        return p;
    };
    auto optional = [](ParameterInfo& p) { p.optional = true; };
    auto range = [](ParameterInfo& p, double low, double high, const char* unit = "") {
        p.low = low;
        p.high = high;
        p.unit = unit;
    };

    add("what", "stage", Type::choice, "dit",
        "vae: the autoencoder; dit: the transformer by flow matching, on pictures, clips or both.")
        .choices = {"vae", "dit"};
    add("what", "model", Type::file, "",
        "Model folder in the diffusers layout to start from; a trained part without weights there begins "
        "with random ones.");
    add("what", "out", Type::file, "",
        "Folder of the run: checkpoints, records, samples and the trained model.");
    add("what", "train-text-encoder", Type::flag, "false",
        "Train the text encoder along with the transformer.");
    add("what", "decoder-only", Type::flag, "false",
        "vae: train the decoder alone; the latents stay what they are, and transformers trained on them "
        "fit.");
    optional(add("what", "tokenizer", Type::file, "",
                 "tokenizer.json, or its folder, when the model folder has none."));

    range(add("what", "lora-rank", Type::integer, "0",
              "Train low-rank additions (LoRA) of this rank to the transformer instead of its weights; 0: "
              "off."),
          0, 4096);
    range(add("what", "lora-alpha", Type::number, "0", "Their scale times the rank; 0: the rank, scale 1."),
          0, 1e6);
    add("what", "lora-layers", Type::text, "blocks.*.attention.qkv,blocks.*.attention.out,blocks.*.cross.*",
        "Linear layers that get them: names with * for anything, several with commas between them.");

    add("data", "data", Type::text, "world",
        "Clips: 'world' (drawn by the program), or a folder of clips and captions, or a .jsonl file.");
    optional(add("data", "pictures", Type::text, "",
                 "Pictures for image-interval: as for data, with one frame, in every height and width of "
                 "clips."));
    optional(add("data", "held-out", Type::text, "",
                 "Data for the held-out loss. Default: of 'world', combinations and wordings that training "
                 "never sees."));
    optional(
        add("data", "cache", Type::file, "",
            "dit: folder that keeps latents and text states of clips from files for the next visit and the "
            "next run. Default: cache in the folder of the run; none: nothing is kept."));
    range(
        add("data", "clips", Type::integer, "0",
            "Of 'world': so many different clips, a multiple of batch, accumulation and processes together; "
            "then they come again, in another order and in other words, and dit has kept their latents in "
            "the device's memory. 0: no clip comes twice."),
        0, 1e8);
    optional(add(
        "data", "emphasis", Type::text, "",
        "Of 'world': what emphasis-share of the clips show, by the names of the vocabulary, several things "
        "with commas between them: small star, fast bounce."));
    range(add("data", "emphasis-share", Type::number, "0",
              "Of the clips for training: so many show what emphasis names, each thing as often as the "
              "others."),
          0, 1);
    range(
        add("data", "held-out-share", Type::number, "0",
            "Of clips from files: this share, chosen by a hash of their names, is kept from training for the "
            "held-out loss."),
        0, 0.5);
    auto size = [&](const char* name, const char* fallback, double low, double high, const char* unit,
                    const char* help) {
        ParameterInfo& p = add("data", name, Type::integer, fallback, help);
        range(p, low, high, unit);
        p.replaced_by = "buckets";
    };
    size("width", "160", 8, 4096, "pixels", "Width of clips.");
    size("height", "96", 8, 4096, "pixels", "Height of clips.");
    size("frames", "33", 1, 10000, "frames",
         "Length of clips: 1 + 4k or 1 + 8k as the autoencoder asks; 1: pictures alone.");
    optional(add("data", "buckets", Type::text, "",
                 "Several sizes, frames x height x width each, in place of width, height and frames: "
                 "33x96x160,33x160x96. Every batch has one of them; a clip from a file goes to the nearest. "
                 "Those of one frame are for pictures."));
    range(add("data", "batch", Type::integer, "4", "Clips a batch, of each process."), 1, 4096);
    range(add("data", "picture-batch", Type::integer, "16", "Pictures a batch, in steps of pictures."), 1,
          4096);
    range(add("data", "image-interval", Type::integer, "0", "Every so many steps one of pictures; 0: none."),
          0, 1e6);
    range(add("data", "workers", Type::integer, "4", "Threads that decode or draw clips."), 1, 256);

    range(add("objective", "shift", Type::number, "3", "Shift of the noise levels towards noise."), 0.01,
          100);
    range(add("objective", "time-mean", Type::number, "0", "Mean of the logit-normal times."), -10, 10);
    range(add("objective", "time-deviation", Type::number, "1", "Deviation of the logit-normal times."), 0.01,
          10);
    range(add("objective", "image-to-video", Type::number, "0",
              "Probability that a clip's first latent frame is given without noise."),
          0, 1);
    range(add("objective", "drop-caption", Type::number, "0.1",
              "Probability of the empty caption, for guidance."),
          0, 1);
    range(add("objective", "text-tokens", Type::integer, "300", "Longest caption."), 2, 8192, "tokens");
    range(add("objective", "kl", Type::number, "1e-6",
              "vae: weight of the divergence from a normal distribution."),
          0, 1);
    range(add("objective", "squared", Type::number, "0",
              "vae: weight of the squared error beside the absolute one."),
          0, 100);
    range(
        add("objective", "scales", Type::number, "0.5", "vae: weight of the error at half and quarter size."),
        0, 100);
    range(add("objective", "edges", Type::number, "0.5",
              "vae: weight of the error of differences between pixels."),
          0, 100);
    range(add("objective", "motion", Type::number, "0.25",
              "vae: weight of the error of differences between frames."),
          0, 100);

    range(add("optimiser", "steps", Type::integer, "1000", "Optimiser steps in all."), 1, 1e9);
    range(add("optimiser", "minutes", Type::number, "0",
              "Stop after so long, with a checkpoint; --resume goes on. 0: no limit."),
          0, 1e6, "min");
    add("optimiser", "optimiser", Type::choice, "adamw",
        "adamw, came, or muon: the matrices inside a transformer's blocks by Muon, the rest by AdamW.")
        .choices = {"adamw", "came", "muon"};
    range(add("optimiser", "rate", Type::number, "5e-5", "Learning rate after warm-up."), 0, 10);
    add("optimiser", "schedule", Type::choice, "constant",
        "After warm-up: constant, cosine to a tenth at the end, or linear to nothing.")
        .choices = {"constant", "cosine", "linear"};
    range(add("optimiser", "warmup", Type::integer, "500", "Steps over which the rate grows from 0."), 0,
          1e9);
    range(add("optimiser", "beta1", Type::number, "0.9", "Memory of the first moment."), 0, 0.99999);
    range(add("optimiser", "beta2", Type::number, "0.999", "Memory of the second moment."), 0, 0.9999999);
    range(add("optimiser", "momentum", Type::number, "0.95", "muon: memory of the moment of matrices."), 0,
          0.99999);
    range(add("optimiser", "epsilon", Type::number, "1e-10", "Added to the root of the second moment."), 0,
          1);
    range(add("optimiser", "decay", Type::number, "0", "Weight decay, decoupled."), 0, 10);
    range(
        add("optimiser", "clip", Type::number, "0.1", "Largest norm of all gradients together; 0: no limit."),
        0, 1e9);
    range(add("optimiser", "accumulation", Type::integer, "1", "Batches a step."), 1, 4096);
    range(add("optimiser", "average", Type::number, "0",
              "Rate of the moving average of the weights, which the model is then written with; 0: none. "
              "0.999 is usual."),
          0, 0.999999);
    range(add("optimiser", "seed", Type::integer, "0", "Of weights, noise and order."), 0,
          9007199254740991.0);
    add("optimiser", "no-recompute", Type::flag, "false",
        "Keep what blocks compute instead of computing it again in the backward pass: faster, more memory.");

    add("machine", "device", Type::device, "auto",
        "cpu, cuda or cuda:N. auto: the first GPU, without one the CPU.");
    add("machine", "precision", Type::choice, "auto",
        "Of the weights that the model computes with; masters are fp32. auto: bf16 on a GPU, fp32 on the "
        "CPU.")
        .choices = {"auto", "fp32", "bf16"};
    range(add("machine", "threads", Type::integer, "0", "CPU threads; 0: all cores."), 0, 1024);
    range(add("machine", "processes", Type::integer, "1",
              "Train on so many GPUs of this machine, a process each, from the named device on; a step takes "
              "the "
              "mean of their gradients. On the CPU they share its threads."),
          1, 64);

    range(add("record", "log-every", Type::integer, "10",
              "Steps between lines of metrics.jsonl and TensorBoard."),
          1, 1e9);
    range(add("record", "checkpoint-every", Type::integer, "500", "Steps between checkpoints."), 1, 1e9);
    range(add("record", "keep", Type::integer, "2", "Checkpoints that are kept."), 1, 1e6);
    add("record", "small-checkpoints", Type::flag, "false",
        "Moments as bf16: half the size, but a resumed run is no longer equal to an uninterrupted one.");
    range(add("record", "hold-out-every", Type::integer, "250", "Steps between held-out losses."), 1, 1e9);
    range(add("record", "hold-out-batches", Type::integer, "4", "Batches of a held-out loss; 0: none."), 0,
          1e6);
    range(add("record", "sample-every", Type::integer, "0",
              "Steps between sample videos, made with the prompts below; 0: at the end alone."),
          0, 1e9);
    optional(add("record", "prompts", Type::file, "", "Text file with a prompt a line, for sample videos."));
    range(add("record", "sample-steps", Type::integer, "30", "Denoising steps of sample videos."), 1, 1000);
    range(add("record", "sample-guidance", Type::number, "4.5", "Guidance of sample videos."), 0, 100);
    return t;
}

}  // namespace

const std::vector<ParameterInfo>& train_table() {
    static const std::vector<ParameterInfo> table = make_table();
    return table;
}

}  // namespace sana::apps
