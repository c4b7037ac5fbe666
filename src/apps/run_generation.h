// A generation from settings to a file: shared by generate and reproduce.
#pragma once

#include "apps/console.h"

namespace sana::apps {

// What the settings leave open is the model folder's choice, then the table's.
void run_generation(Settings settings, const Common& common);

// A latents file: "latents" [1,Z,t,h,w] fp32 as the reference lays them out, with what decoding needs as metadata.
void write_latents(const std::string& path, const Tensor& latents, const std::string& recipe, Size output,
                   double fps);

}  // namespace sana::apps
