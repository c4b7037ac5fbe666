// Errors and checks. Every failure is an exception that says what went wrong, where (the scope path) and what to do.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace sana {

// Base of all errors of this program. what() is the message followed by the path of the scopes that were open.
class Error : public std::runtime_error {
public:
    explicit Error(const std::string& message);
};

// The caller's input is wrong (a file, a parameter, a prompt): the program ends with exit code 2.
class InputError : public Error {
public:
    using Error::Error;
};

// The caller asked to stop: exit code 3.
class Cancelled : public Error {
public:
    using Error::Error;
};

// print(out, value) appends a value to a message. Types add their own overload next to their declaration.
void print(std::string& out, double value);
inline void print(std::string& out, std::string_view value) { out += value; }
inline void print(std::string& out, const char* value) { out += value; }
inline void print(std::string& out, const std::string& value) { out += value; }
inline void print(std::string& out, char value) { out += value; }
inline void print(std::string& out, bool value) { out += value ? "true" : "false"; }
template <class T>
requires std::is_integral_v<T>
void print(std::string& out, T value) { out += std::to_string(value); }

// Joins pieces into one string with the printers above.
template <class... Parts>
std::string join(const Parts&... parts) {
    std::string out;
    (print(out, parts), ...);
    return out;
}

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
    throw Error(join(parts...));
}

template <class... Parts>
[[noreturn]] void fail_input(const Parts&... parts) {
    throw InputError(join(parts...));
}

// A condition that the program itself must keep. Formatting happens only on failure.
template <class... Parts>
void check(bool condition, const Parts&... parts) {
    if (!condition) [[unlikely]] {
        fail(parts...);
    }
}

// A condition that the caller's input must keep.
template <class... Parts>
void check_input(bool condition, const Parts&... parts) {
    if (!condition) [[unlikely]] {
        fail_input(parts...);
    }
}

}  // namespace sana
