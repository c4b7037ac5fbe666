#include "core/check.h"

#include <cstdio>

#include "core/scope.h"

namespace sana {

namespace {

std::string with_scope(const std::string& message) {
    std::string path = Scope::path();
    return path.empty() ? message : message + "\n  in  " + path;
}

}  // namespace

Error::Error(const std::string& message) : std::runtime_error(with_scope(message)) {}

void print(std::string& out, double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", value);
    out += text;
}

}  // namespace sana
