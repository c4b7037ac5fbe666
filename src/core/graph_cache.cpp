#include "core/graph_cache.h"

#include <algorithm>

namespace sana {

GraphCache::GraphCache(Device device, std::function<void(const std::string&)> note)
    : device_(device), note_(std::move(note)) {}

int64_t GraphCache::recorded() const {
    return std::count_if(entries_.begin(), entries_.end(),
                         [](auto& entry) { return entry.second->graph != nullptr; });
}

void GraphCache::record(const std::string& key, Entry& entry, const std::vector<Tensor>& inputs,
                        const Several& f) {
    try {
        MemoryPool::Use use(entry.pool);
        for (const Tensor& input : inputs) entry.inputs.push_back(input.clone());
        entry.graph = std::make_unique<DeviceGraph>(device_, [&] { entry.outputs = f(entry.inputs); });
    } catch (const Error& error) {
        entry.possible = false;
        entry.inputs.clear();
        entry.outputs.clear();
        if (note_) note_(join(key, " is not recorded: ", error.what()));
    }
}

Tensor GraphCache::run(const std::string& key, const std::vector<Tensor>& inputs, const Function& f) {
    return run_several(key, inputs,
                       [&](const std::vector<Tensor>& x) { return std::vector<Tensor>{f(x)}; })[0];
}

std::vector<Tensor> GraphCache::run_several(const std::string& key, const std::vector<Tensor>& inputs,
                                            const Several& f) {
    if (device_ == kCpu) return f(inputs);
    std::unique_ptr<Entry>& entry = entries_[key];
    if (entry == nullptr) {
        entry = std::make_unique<Entry>(device_);
        return f(inputs);
    }
    if (entry->possible && entry->graph == nullptr) record(key, *entry, inputs, f);
    if (entry->graph == nullptr) return f(inputs);
    check(inputs.size() == entry->inputs.size(), key, ": recorded with ", entry->inputs.size(),
          " inputs, not ", inputs.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
        check(inputs[i].shape() == entry->inputs[i].shape(), key, ": input ", i, " is ", inputs[i],
              ", recorded as ", entry->inputs[i]);
        copy(inputs[i], entry->inputs[i]);
    }
    entry->graph->launch();
    std::vector<Tensor> out;
    for (const Tensor& output : entry->outputs) out.push_back(output.clone());
    return out;
}

}  // namespace sana
