// The table of parameters of a training run, in the form of the generation's table.
#pragma once

#include "pipeline/parameters.h"

namespace sana::apps {

const std::vector<ParameterInfo>& train_table();

}  // namespace sana::apps
