// Modules are plain structs with members, forward() and visit(v), which names every member once:
//     void visit(auto& v) { v("qkv", qkv); v("out", out); }
// Everything that walks a model (load, save, count, draw at random) works on the list that parameters() makes of it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "ops/fp8.h"

namespace sana {

// How a fresh parameter is drawn: normal with this standard deviation around this mean.
struct Init {
    double mean = 0;
    double std = 0;
};

// A learned tensor: its layout here, its layout in checkpoints, and the way between the two.
struct Parameter {
    Shape shape;            // here; rank 0: the parameter does not exist (a layer without bias)
    Shape stored;           // in checkpoints
    std::vector<int> axes;  // value = permute(stored tensor, axes) reshaped to shape; empty: reshaped only
    Init init;
    bool keep_fp32 = false;  // not converted to the model's dtype (statistics)
    bool factor = false;     // of a product with wide rows: may be held as E4M3 (nn/fp8.h)
    Tensor value = {};       // undefined until loaded or drawn, and when codes take its place
    Fp8 codes = {};          // rows: the first dimension. Beside a value: the two are compared (nn/fp8.h)

    bool exists() const { return shape.rank() > 0; }
};

// A parameter that checkpoints store in the same layout.
Parameter same_layout(const Shape& shape, Init init);

struct NamedParameter {
    std::string name;
    Parameter* parameter;
};

class ParameterCollector {
public:
    std::vector<NamedParameter> found;

    void operator()(std::string_view name, Parameter& parameter) {
        if (parameter.exists()) found.push_back({join_path(name), &parameter});
    }
    template <class M>
    void operator()(std::string_view name, std::optional<M>& module) {
        if (module) (*this)(name, *module);
    }
    template <class M>
    void operator()(std::string_view name, std::vector<M>& list) {
        for (size_t i = 0; i < list.size(); ++i) (*this)(join(name, '.', i), list[i]);
    }
    template <class M>
    void operator()(std::string_view name, M& module) {
        std::string outer = prefix_;
        prefix_ = join_path(name) + ".";
        module.visit(*this);
        prefix_ = outer;
    }

private:
    std::string join_path(std::string_view name) const { return prefix_ + std::string(name); }
    std::string prefix_;
};

template <class M>
std::vector<NamedParameter> parameters(M& module) {
    ParameterCollector collector;
    module.visit(collector);
    return std::move(collector.found);
}

int64_t count(const std::vector<NamedParameter>& parameters);  // elements

// Draws every parameter by its Init; the same seed and name give the same values on every device.
void draw(const std::vector<NamedParameter>& parameters, uint64_t seed, DType dtype, Device device = kCpu);

}  // namespace sana
