#include "nn/module.h"

#include "core/random.h"

namespace sana {

Parameter same_layout(const Shape& shape, Init init) {
    Parameter p;
    p.shape = p.stored = shape;
    p.init = init;
    return p;
}

int64_t count(const std::vector<NamedParameter>& parameters) {
    int64_t n = 0;
    for (const NamedParameter& p : parameters) n += p.parameter->shape.numel();
    return n;
}

void draw(const std::vector<NamedParameter>& parameters, uint64_t seed, DType dtype, Device device) {
    for (const NamedParameter& named : parameters) {
        Parameter& p = *named.parameter;
        DType type = p.keep_fp32 ? DType::F32 : dtype;
        if (p.init.std == 0) {
            p.value = full(p.shape, p.init.mean, type, device).named(named.name);
            continue;
        }
        uint64_t stream = 0xcbf29ce484222325u;  // FNV-1a of the name
        for (unsigned char c : named.name) stream = (stream ^ c) * 0x100000001b3u;
        p.value = normal_philox(p.shape, {seed, stream, p.init.mean, p.init.std}, device)
                      .to(type)
                      .named(named.name);
    }
}

}  // namespace sana
