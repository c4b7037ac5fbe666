// What stays on a GPU, what moves and what is cut in pieces, decided before the first step so that a run stays inside a
// budget of device memory. Sizes come from configs and shapes.
#pragma once

#include <string>
#include <vector>

#include "models/dit/dit.h"
#include "models/gemma2/gemma2.h"
#include "pipeline/placement.h"
#include "pipeline/request.h"
#include "pipeline/vae.h"

namespace sana {

// One phase of a run. One at a time is on the device: a phase's weights are given back before the next one's come.
struct PhaseMemory {
    Phase phase = Phase::text;
    int64_t weights =
        0;  // bytes that stay on the device during the phase, with the places for streamed blocks
    int64_t streamed = 0;  // bytes that are brought from the host in every pass
    int64_t working = 0;   // bytes of activations, freed blocks that wait for reuse included
    std::string how = {};  // what is done to fit, in words; empty: nothing

    int64_t peak() const { return weights + working; }
};

struct MemoryPlan {
    int64_t budget = 0;  // bytes; 0: no limit, and nothing is cut
    bool text_on_host = false;
    int64_t samples = 0, wide_frames = 0;  // see DiTExecution
    int64_t resident_blocks = -1;          // of the transformer; the others are streamed. -1: all
    std::vector<PhaseMemory> phases = {};

    int64_t peak() const;
};

struct MemoryQuestion {
    const DiTConfig& dit;
    const Gemma2Config& text;
    const VaeConfig& vae;
    Placement placement;
    Shape latents;  // [1,t,h,w,Z]
    bool guided = true, image = false;
    int64_t text_length = 300;  // positions that the transformer sees
};

// The plan that costs least time among those that fit the budget. InputError when none does, with the least budget.
MemoryPlan plan_memory(const MemoryQuestion& question, int64_t budget);

// The plan as a table: a line a phase.
std::string to_text(const MemoryPlan& plan);

// "8G", "7.5G", "6000M": bytes; "auto": 0. InputError for other text and for less than 1 GiB.
int64_t parse_vram(const std::string& text);

// The budget that "auto" stands for: what is free on the device, less a reserve for the driver's own use. 0 on the CPU.
int64_t automatic_budget(Device device);

}  // namespace sana
