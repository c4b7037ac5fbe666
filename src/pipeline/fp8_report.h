// What E4M3 costs a transformer in accuracy: layer by layer on the same input, and for a whole prediction.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "models/dit/dit.h"

namespace sana {

struct Fp8Report {
    struct Layer {
        std::string name;
        double error = 0;   // relative L2 of its product against that of the values
        bool kept = false;  // above the threshold: stays as it is
    };
    std::vector<Layer> layers;  // the largest error first
    double all = 0;             // relative L2 of a prediction with all of them as codes
    double chosen = 0;          // with the kept ones as they are

    // The kept ones, for --fp8-keep.
    std::string keep() const;
};

// predict: one prediction of the model. Afterwards the model holds codes where a layer is not kept.
Fp8Report fp8_report(DiT& model, const Fp8Rule& rule, double threshold,
                     const std::function<Tensor()>& predict);

// Globs as parse_globs() reads them.
std::string globs_text(const std::vector<std::string>& globs);

}  // namespace sana
