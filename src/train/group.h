// Processes of one machine that train together, each on a device of its own: what they compute is added up in memory that
// they share. Sums are made in the order of ranks, so that all processes hold the same bits, and a run repeats exactly.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "train/peers.h"

namespace sana {

class Group {
public:
    // Memory to share between `size` processes: a slot each, through which larger tensors go in pieces.
    explicit Group(int size, int64_t slot_bytes = int64_t{64} << 20);
    // Waits for the processes that start() made. One that ends with an exception, or dies, ends the others' waits with an
    // Error, so that none hangs.
    ~Group();
    Group(const Group&) = delete;
    Group& operator=(const Group&) = delete;

    // From here on there are `size` processes, which differ in rank() alone. Before the first use of a GPU and of threads:
    // a process that is split keeps neither.
    void start();
    // Ends a process made by start(); rank 0 returns once all have. Error when one of them failed.
    void finish();

    // For a process that ends without unwinding: whether the failure of another one is known, or becomes so within two
    // seconds; and saying that this one failed.
    bool another_failed() const;
    void give_up();

    int rank() const { return rank_; }
    int size() const { return size_; }

    // x becomes the sum over the processes. x: fp32, dense, of equal size everywhere, on any device. Devices that can read
    // one another's memory do it there, others through the memory of the host, with the same bits.
    void sum(Tensor& x);
    void sum(std::vector<double>& values);

private:
    struct Shared;
    struct Pinned;
    std::byte* slot(int rank) const;
    void find_peers(Device device);
    void sum_in_peers(Tensor& x);
    void meet();               // returns when every process has come here
    std::string lost() const;  // a process that will not come any more, in words; empty: none

    int size_, rank_ = 0;
    int64_t slot_bytes_, mapped_ = 0;
    int parent_ = 0;
    std::vector<int> children_;
    Shared* shared_ = nullptr;
    std::unique_ptr<Pinned> pinned_;
    std::unique_ptr<Peers> peers_;
    bool looked_for_peers_ = false;
};

}  // namespace sana
