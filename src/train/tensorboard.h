// Numbers over steps as TensorBoard reads them: a TFRecord file of Event messages (tensorflow/core/util/event.proto).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sana {

// CRC-32C (Castagnoli).
uint32_t crc32c(const void* data, size_t bytes);

class TensorBoard {
public:
    // Makes a new file events.out.tfevents.TIME.NAME in the folder.
    TensorBoard(const std::string& folder, double time);
    ~TensorBoard();
    TensorBoard(const TensorBoard&) = delete;
    TensorBoard& operator=(const TensorBoard&) = delete;

    void add(int64_t step, double time, const std::vector<std::pair<std::string, double>>& values);

private:
    void record(const std::string& event);
    std::string path_;
    int fd_ = -1;
};

}  // namespace sana
