// Replays of device work whose launches take longer than the work: small models, short texts.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/graph.h"
#include "core/tensor.h"

namespace sana {

class GraphCache {
public:
    using Function = std::function<Tensor(const std::vector<Tensor>& inputs)>;
    using Several = std::function<std::vector<Tensor>(const std::vector<Tensor>& inputs)>;

    // note: told once a key when its work cannot be recorded, with the reason; such work is done as without a cache.
    explicit GraphCache(Device device, std::function<void(const std::string&)> note = {});

    // f(inputs), new tensors. The first call of a key does f, which chooses kernels; the second one records it; from then
    // on the recording is launched. One key stands for one sequence of work: what f uses beside its inputs (weights)
    // stays where it is, and the inputs keep their shapes. On the CPU f is done every time.
    Tensor run(const std::string& key, const std::vector<Tensor>& inputs, const Function& f);
    std::vector<Tensor> run_several(const std::string& key, const std::vector<Tensor>& inputs,
                                    const Several& f);

    int64_t recorded() const;  // keys that are launched as a recording

private:
    struct Entry {
        explicit Entry(Device device) : pool(device) {}
        MemoryPool pool;  // first: it outlives what lives in it
        std::vector<Tensor> inputs, outputs;
        std::unique_ptr<DeviceGraph> graph;
        bool possible = true;
    };
    void record(const std::string& key, Entry& entry, const std::vector<Tensor>& inputs, const Several& f);

    Device device_;
    std::function<void(const std::string&)> note_;
    std::map<std::string, std::unique_ptr<Entry>> entries_;
};

}  // namespace sana
