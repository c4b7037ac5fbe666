#include "train/group.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <thread>

#include "core/cuda/device.h"
#include "core/parallel.h"
#include "ops/pointwise.h"

namespace sana {

struct Group::Shared {
    std::atomic<int> arrived{0};
    std::atomic<uint32_t> meetings{0};
    std::atomic<int> failed{-1};  // the rank that ended with an error
};

// The shared memory as a device may copy to and from it.
struct Group::Pinned {
    Pinned(void* data, int64_t bytes) : data_(data) { cuda::pin(data, bytes); }
    ~Pinned() { cuda::unpin(data_); }
    void* data_;
};

namespace {

constexpr int64_t kPage = 4096;
static_assert(std::atomic<int>::is_always_lock_free && std::atomic<uint32_t>::is_always_lock_free);

// A slot as a tensor.
Tensor view_of(std::byte* data, int64_t elements) {
    int64_t bytes = elements * size_of(DType::F32);
    return Tensor(std::make_shared<Storage>(data, bytes, kCpu), 0, DType::F32, {elements});
}

}  // namespace

Group::Group(int size, int64_t slot_bytes)
    : size_(size), slot_bytes_((slot_bytes + kPage - 1) / kPage * kPage) {
    check(size >= 1 && slot_bytes > 0, "a group of ", size, " processes");
    if (size_ == 1) return;
    // A slot each, and one for the sum.
    mapped_ = kPage + slot_bytes_ * (size_ + 1);
    void* data = mmap(nullptr, static_cast<size_t>(mapped_), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) fail("no memory to share between processes: ", std::strerror(errno));
    shared_ = new (data) Shared;
}

Group::~Group() {
    if (shared_ == nullptr) return;
    if (std::uncaught_exceptions() > 0) give_up();
    for (int child : children_) waitpid(child, nullptr, 0);
    peers_.reset();
    pinned_.reset();
    munmap(shared_, static_cast<size_t>(mapped_));
}

void Group::give_up() {
    int none = -1;
    if (shared_ != nullptr) shared_->failed.compare_exchange_strong(none, rank_);
}

bool Group::another_failed() const {
    for (int waits = 0; waits < 100; ++waits) {
        int failed = shared_ == nullptr ? -1 : shared_->failed.load();
        if (failed >= 0 && failed != rank_) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return false;
}

void Group::start() {
    parent_ = getpid();
    for (int rank = 1; rank < size_; ++rank) {
        pid_t child = fork();
        if (child < 0) {
            int error = errno;
            shared_->failed = 0;
            fail("process ", rank, " cannot be started: ", std::strerror(error));
        }
        if (child == 0) {
            children_.clear();
            rank_ = rank;
            prctl(PR_SET_PDEATHSIG, SIGKILL);  // when rank 0 is killed
            return;
        }
        children_.push_back(child);
    }
}

void Group::finish() {
    std::vector<int> children = std::move(children_);
    children_.clear();
    for (size_t i = 0; i < children.size(); ++i) {
        int status = 0;
        waitpid(children[i], &status, 0);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) fail("the process of rank ", i + 1, " failed");
    }
}

std::byte* Group::slot(int rank) const {
    return reinterpret_cast<std::byte*>(shared_) + kPage + slot_bytes_ * rank;
}

std::string Group::lost() const {
    int failed = shared_->failed;
    if (failed >= 0 && failed != rank_) return join("the process of rank ", failed, " stopped with an error");
    if (rank_ > 0 && getppid() != parent_) return "the process of rank 0 is gone";
    for (size_t i = 0; i < children_.size(); ++i) {
        siginfo_t info{};
        // Looks without taking the status, which finish() reads.
        if (waitid(P_PID, static_cast<id_t>(children_[i]), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
            info.si_pid != 0)
            return join("the process of rank ", i + 1, " ended before the run did");
    }
    return {};
}

void Group::meet() {
    uint32_t meeting = shared_->meetings;
    if (shared_->arrived.fetch_add(1) + 1 == size_) {
        shared_->arrived = 0;
        shared_->meetings = meeting + 1;
        return;
    }
    for (int64_t waits = 0; shared_->meetings == meeting; ++waits) {
        if (waits < 1000) {
            std::this_thread::yield();
            continue;
        }
        std::this_thread::sleep_for(std::chrono::microseconds(waits < 20000 ? 20 : 2000));
        if (waits % 100 != 0) continue;
        // Who is not there any more may have come before it left.
        if (std::string reason = lost(); !reason.empty() && shared_->meetings == meeting) fail(reason);
    }
}

// All or none: a process that cannot reach another one says so to all.
void Group::find_peers(Device device) {
    looked_for_peers_ = true;
    auto peers = std::make_unique<Peers>(device, slot_bytes_);
    auto all = [this](bool here) {
        std::vector<double> count{here ? 1.0 : 0.0};
        sum(count);
        return count[0] == size_;
    };
    if (!all(peers->made())) return;
    std::memcpy(slot(rank_), &peers->handle(), sizeof(cuda::PeerHandle));
    meet();
    std::vector<cuda::PeerHandle> handles(static_cast<size_t>(size_));
    for (int r = 0; r < size_; ++r)
        std::memcpy(&handles[static_cast<size_t>(r)], slot(r), sizeof(cuda::PeerHandle));
    meet();
    if (all(peers->open(handles, rank_))) peers_ = std::move(peers);
}

void Group::sum_in_peers(Tensor& x) {
    Tensor all = x.reshape({x.numel()});
    int64_t room = slot_bytes_ / size_of(DType::F32);
    for (int64_t first = 0; first < all.numel(); first += room) {
        int64_t n = std::min(room, all.numel() - first);
        Tensor piece = all.outer_slice(first, n);
        Tensor mine = peers_->slot(rank_, n);
        copy(piece, mine);
        synchronise(x.device());
        meet();
        // Every process adds all, in the order of ranks.
        Tensor total = peers_->slot(0, n);
        for (int r = 1; r < size_; ++r) total = combine({{1, total}, {1, peers_->slot(r, n)}});
        copy(total, piece);
        synchronise(x.device());
        meet();
    }
}

void Group::sum(Tensor& x) {
    if (size_ == 1) return;
    check(x.dtype() == DType::F32 && x.dense(), "a sum over processes of ", x);
    if (x.device() != kCpu && !looked_for_peers_) find_peers(x.device());
    if (x.device() != kCpu && peers_) return sum_in_peers(x);
    if (x.device() != kCpu && !pinned_)
        pinned_ = std::make_unique<Pinned>(static_cast<void*>(slot(0)), slot_bytes_ * (size_ + 1));
    Tensor all = x.reshape({x.numel()});
    int64_t room = slot_bytes_ / size_of(DType::F32);
    for (int64_t first = 0; first < all.numel(); first += room) {
        int64_t n = std::min(room, all.numel() - first);
        Tensor piece = all.outer_slice(first, n), mine = view_of(slot(rank_), n),
               total = view_of(slot(size_), n);
        copy(piece, mine);
        synchronise(x.device());
        meet();
        // Every process adds its share of the elements, from all slots in the order of ranks.
        int64_t begin = n * rank_ / size_, end = n * (rank_ + 1) / size_;
        float* to = total.data<float>();
        parallel_for((end - begin + 4095) / 4096, 4096, [&](int64_t block) {
            int64_t stop = std::min(end, begin + (block + 1) * 4096);
            for (int64_t i = begin + block * 4096; i < stop; ++i) {
                float sum = 0;
                for (int r = 0; r < size_; ++r) sum += reinterpret_cast<const float*>(slot(r))[i];
                to[i] = sum;
            }
        });
        meet();
        copy(total, piece);
        synchronise(x.device());
    }
}

void Group::sum(std::vector<double>& values) {
    if (size_ == 1) return;
    int64_t bytes = static_cast<int64_t>(values.size() * sizeof(double));
    check(bytes <= slot_bytes_, values.size(), " values are too many for a slot");
    std::memcpy(slot(rank_), values.data(), static_cast<size_t>(bytes));
    meet();
    for (size_t i = 0; i < values.size(); ++i) {
        values[i] = 0;
        for (int r = 0; r < size_; ++r) values[i] += reinterpret_cast<const double*>(slot(r))[i];
    }
    meet();
}

}  // namespace sana
