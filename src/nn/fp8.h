// Weights of products held as E4M3 (ops/fp8.h): half the memory of bf16, and twice the speed on devices with 8-bit tensor
// cores. What the rest of a model computes in stays as it is.
#pragma once

#include <string>
#include <vector>

#include "nn/module.h"

namespace sana {

// Which weights become codes: factors of products whose name matches one of `layers` and none of `keep`. Globs over
// names as parameters() gives them, without ".weight": "blocks.*.ffn.point".
struct Fp8Rule {
    std::vector<std::string> layers, keep;

    bool empty() const { return layers.empty(); }
    bool takes(const NamedParameter& p) const;
};

// Globs between commas; spaces around them do not count.
std::vector<std::string> parse_globs(const std::string& text);

// The name of a weight's layer: without ".weight".
std::string layer_name(const std::string& parameter);

// While open on this thread: layers that hold codes beside their value compute by the value, and the study keeps how far
// the codes would have led from there on the same input.
class Fp8Study {
public:
    Fp8Study();
    ~Fp8Study();
    Fp8Study(const Fp8Study&) = delete;
    Fp8Study& operator=(const Fp8Study&) = delete;

    struct Layer {
        std::string name;
        double error = 0;  // relative L2 of the product without what follows it; the largest of several calls
    };
    std::vector<Layer> layers;

    // Called by such layers; a few thousand rows are compared.
    static void add(const std::string& parameter, const Tensor& by_codes, const Tensor& by_value);

private:
    Fp8Study* previous_;
};

// Puts codes in the place of the value where the rule takes the parameter; says whether it did.
// keep_value: beside the value, for a study.
bool quantise(const NamedParameter& p, const Fp8Rule& rule, bool keep_value = false);

// The value, or what the codes stand for.
Tensor dense_value(const Parameter& p, DType dtype);

}  // namespace sana
