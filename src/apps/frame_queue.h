// Frames are written by a thread of their own, so that the next ones are decoded meanwhile.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>

#include "io/video.h"

namespace sana::apps {

class FrameQueue {
public:
    explicit FrameQueue(VideoWriter& writer) : writer_(writer), thread_([this] { run(); }) {}
    ~FrameQueue() { stop(); }  // what has not been written yet is dropped unless finish() came before
    FrameQueue(const FrameQueue&) = delete;
    FrameQueue& operator=(const FrameQueue&) = delete;

    // Waits while kMost pieces stand in line. Throws what writing an earlier piece threw.
    void append(const Tensor& frames) {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return waiting_.size() < kMost || error_; });
        if (error_) std::rethrow_exception(error_);
        waiting_.push_back(frames);
        changed_.notify_all();
    }

    // Waits for the last piece and finishes the file.
    void finish() {
        {
            std::unique_lock lock(mutex_);
            changed_.wait(lock, [&] { return (waiting_.empty() && !busy_) || error_; });
        }
        stop();
        if (error_) std::rethrow_exception(error_);
        writer_.finish();
    }

private:
    static constexpr size_t kMost = 2;

    void run() {
        std::unique_lock lock(mutex_);
        while (true) {
            changed_.wait(lock, [&] { return !waiting_.empty() || stop_; });
            if (stop_) return;
            Tensor frames = waiting_.front();
            waiting_.pop_front();
            busy_ = true;
            lock.unlock();
            std::exception_ptr error;
            try {
                writer_.append(frames);
            } catch (...) {
                error = std::current_exception();
            }
            lock.lock();
            busy_ = false;
            if (error) error_ = error;
            changed_.notify_all();
            if (error_) return;
        }
    }

    void stop() {
        {
            std::lock_guard lock(mutex_);
            stop_ = true;
        }
        changed_.notify_all();
        if (thread_.joinable()) thread_.join();
    }

    VideoWriter& writer_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Tensor> waiting_;
    std::exception_ptr error_;
    bool busy_ = false, stop_ = false;
    std::thread thread_;  // last: it uses the others
};

}  // namespace sana::apps
