#include "io/pickle.h"

#include <bit>
#include <cstdio>
#include <cstring>
#include <optional>
#include <unordered_map>

#include "core/check.h"
#include "io/describe.h"
#include "io/pickle_names.h"

namespace sana {

namespace {

using Value = PickleValue;
using Kind = PickleValue::Kind;

constexpr size_t kLargestPickle = size_t{256} << 20, kMostValues = 4'000'000, kMostTensors = 1'000'000,
                 kDeepest = 200;

class Reader {
public:
    Reader(Pickle& pickle, std::string_view bytes, const std::string& path)
        : pickle_(pickle), bytes_(bytes), path_(path) {}

    void run() {
        while (step()) {
        }
        if (stack_.size() != 1 || !marks_.empty()) bad("its stack is not empty at the end");
        pickle_.root = stack_[0];
    }

private:
    [[noreturn]] void bad(const std::string& what) const {
        fail_input(path_, ": the pickle is damaged at byte ", at_, ": ", what,
                   ": download or write the file again");
    }

    // Input.
    std::string_view take(uint64_t n) {
        if (n > bytes_.size() - at_) bad("it ends too early");
        std::string_view out = bytes_.substr(at_, n);
        at_ += n;
        return out;
    }
    template <class T>
    T number() {
        T value;
        std::memcpy(&value, take(sizeof value).data(), sizeof value);
        return value;
    }
    std::string_view line() {
        size_t end = bytes_.find('\n', at_);
        if (end == std::string_view::npos) bad("a line does not end");
        std::string_view out = bytes_.substr(at_, end - at_);
        at_ = end + 1;
        return out;
    }

    // Stack.
    Value* make(Kind kind) {
        if (pickle_.values.size() >= kMostValues) {
            fail_input(path_, ": the pickle holds more than ", kMostValues,
                       " values, which no checkpoint needs: refused");
        }
        pickle_.values.emplace_back().kind = kind;
        return &pickle_.values.back();
    }
    void push(Value* value) { stack_.push_back(value); }
    Value* push(Kind kind) {
        push(make(kind));
        return stack_.back();
    }
    void push_integer(int64_t integer) { push(Kind::integer)->integer = integer; }
    void push_text(std::string_view text) { push(Kind::text)->text = text; }
    size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
    Value* pop() {
        if (stack_.size() <= floor()) bad("it takes a value from an empty stack");
        Value* top = stack_.back();
        stack_.pop_back();
        return top;
    }
    Value* top() const {
        if (stack_.size() <= floor()) bad("it needs a value on an empty stack");
        return stack_.back();
    }
    std::vector<Value*> pop_to_mark() {
        if (marks_.empty()) bad("a mark is missing");
        std::vector<Value*> items(stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back()), stack_.end());
        stack_.resize(marks_.back());
        marks_.pop_back();
        return items;
    }
    void push_tuple(size_t n) {
        Value* tuple = make(Kind::tuple);
        tuple->items.resize(n);
        for (size_t i = n; i-- > 0;) tuple->items[i] = pop();
        push(tuple);
    }
    void append(Value* to, Kind kind, const std::vector<Value*>& items) const {
        if (to->kind == Kind::other) return;  // a set
        if (to->kind != kind) bad("it adds items to what is no container");
        if (kind == Kind::dict && items.size() % 2 != 0) bad("a key has no value");
        to->items.insert(to->items.end(), items.begin(), items.end());
    }

    // Memo.
    void remember(uint64_t index) {
        if (memo_.size() >= kMostValues) bad("it remembers too many values");
        memo_[index] = top();
    }
    void recall(uint64_t index) {
        auto found = memo_.find(index);
        if (found == memo_.end()) bad(join("it recalls value ", index, ", which it never stored"));
        push(found->second);
    }

    bool step();
    void global(std::string_view module, std::string_view name);
    void reduce();
    void persistent();
    void rebuild_tensor(const std::vector<Value*>& arguments, bool has_dtype);
    Shape numbers(const Value* value, const char* what) const;
    void long_integer(std::string_view digits);

    const Value* argument(const std::vector<Value*>& arguments, size_t i, Kind kind, const char* what) const {
        if (i >= arguments.size() || arguments[i]->kind != kind)
            bad(join(what, " is missing or of another type"));
        return arguments[i];
    }

    Pickle& pickle_;
    std::string_view bytes_;
    const std::string& path_;
    size_t at_ = 0;
    std::vector<Value*> stack_;
    std::vector<size_t> marks_;
    std::unordered_map<uint64_t, Value*> memo_;
    std::vector<PickleName> names_;  // of values of kind function, by their integer
};

void Reader::global(std::string_view module, std::string_view name) {
    std::optional<PickleName> known = find_pickle_name(module, name);
    if (!known && module == "torch" && name.ends_with("Storage")) {
        fail_input(path_, ": tensors of type ", in_quotes(name.substr(0, 100)), " are not supported");
    }
    if (!known) {
        fail_input(path_, ": this file wants to run code or make an object: ",
                   in_quotes(std::string(module.substr(0, 100)) + "." + std::string(name.substr(0, 100))),
                   "; refused. Only tensors and plain containers are read: save the weights alone "
                   "(torch.save(model.state_dict(), path)) or as safetensors");
    }
    push(Kind::function)->integer = static_cast<int64_t>(names_.size());
    names_.push_back(*known);
}

Shape Reader::numbers(const Value* value, const char* what) const {
    if (value->items.size() > Shape::kMaxRank) {
        fail_input(path_, ": a tensor has ", value->items.size(), " dimensions, at most ", Shape::kMaxRank,
                   " are supported");
    }
    Shape out;
    for (const Value* item : value->items) {
        if (item->kind != Kind::integer || item->integer < 0) bad(join(what, " are not natural numbers"));
        out.push_back(item->integer);
    }
    return out;
}

void Reader::rebuild_tensor(const std::vector<Value*>& arguments, bool has_dtype) {
    PickleTensor tensor;
    tensor.storage =
        static_cast<size_t>(argument(arguments, 0, Kind::storage, "a tensor's storage")->integer);
    tensor.offset = argument(arguments, 1, Kind::integer, "a tensor's offset")->integer;
    tensor.shape = numbers(argument(arguments, 2, Kind::tuple, "a tensor's shape"), "a tensor's sizes");
    tensor.strides = numbers(argument(arguments, 3, Kind::tuple, "a tensor's strides"), "a tensor's strides");
    if (tensor.strides.rank() != tensor.shape.rank())
        bad("a tensor has another number of strides than sizes");
    if (tensor.offset < 0) bad("a tensor's offset is negative");
    const PickleStorage& storage = pickle_.storages[tensor.storage];
    tensor.dtype = storage.dtype;
    if (has_dtype) {
        const Value* function = argument(arguments, 6, Kind::function, "a tensor's dtype");
        const PickleName& name = names_[static_cast<size_t>(function->integer)];
        if (name.kind != PickleName::Kind::dtype) bad("a tensor's dtype is not one");
        tensor.dtype = *name.dtype;
    } else if (storage.untyped) {
        bad("a tensor has no dtype");
    }
    if (pickle_.tensors.size() >= kMostTensors) bad("it has too many tensors");
    push(Kind::tensor)->integer = static_cast<int64_t>(pickle_.tensors.size());
    pickle_.tensors.push_back(tensor);
}

void Reader::reduce() {
    Value* arguments = pop();
    Value* function = pop();
    if (function->kind != Kind::function || arguments->kind != Kind::tuple)
        bad("it calls what is no function");
    const PickleName& name = names_[static_cast<size_t>(function->integer)];
    switch (name.kind) {
        case PickleName::Kind::rebuild_tensor: return rebuild_tensor(arguments->items, false);
        case PickleName::Kind::rebuild_tensor_of_dtype: return rebuild_tensor(arguments->items, true);
        case PickleName::Kind::rebuild_parameter: {
            size_t index = static_cast<size_t>(
                argument(arguments->items, 0, Kind::tensor, "a parameter's tensor")->integer);
            push(Kind::tensor)->integer = static_cast<int64_t>(index);
            return;
        }
        case PickleName::Kind::ordered_dict:
            if (!arguments->items.empty()) bad("an OrderedDict is made with arguments");
            push(Kind::dict);
            return;
        case PickleName::Kind::size: {
            if (arguments->items.size() != 1 || arguments->items[0]->kind != Kind::tuple)
                bad("a torch.Size has no numbers");
            // The tuple itself, not a copy: a short pickle could ask for many copies of a long tuple.
            push(arguments->items[0]);
            return;
        }
        case PickleName::Kind::harmless: push(Kind::other); return;
        case PickleName::Kind::storage:
        case PickleName::Kind::dtype: bad("it calls a storage or dtype");
    }
}

// ("storage", class, key, device, number of elements)
void Reader::persistent() {
    const std::vector<Value*>& id = argument({pop()}, 0, Kind::tuple, "a persistent id")->items;
    if (argument(id, 0, Kind::text, "a persistent id's type")->text != "storage")
        bad("a persistent id is no storage");
    const PickleName& name =
        names_[static_cast<size_t>(argument(id, 1, Kind::function, "a storage's class")->integer)];
    if (name.kind != PickleName::Kind::storage) bad("a storage's class is not one");
    PickleStorage storage;
    storage.key = argument(id, 2, Kind::text, "a storage's key")->text;
    storage.elements = argument(id, 4, Kind::integer, "a storage's size")->integer;
    if (storage.elements < 0) bad("a storage's size is negative");
    storage.untyped = !name.dtype.has_value();
    storage.dtype = name.dtype.value_or(DType::U8);
    if (pickle_.storages.size() >= kMostTensors) bad("it has too many storages");
    push(Kind::storage)->integer = static_cast<int64_t>(pickle_.storages.size());
    pickle_.storages.push_back(storage);
}

// Little-endian two's complement of any length; numbers beyond 64 bits (seeds) are of no use here.
void Reader::long_integer(std::string_view digits) {
    if (digits.size() > 8) {
        push(Kind::other);
        return;
    }
    uint64_t value = !digits.empty() && (static_cast<uint8_t>(digits.back()) & 0x80) != 0 ? ~uint64_t{0} : 0;
    for (size_t i = digits.size(); i-- > 0;) value = (value << 8) | static_cast<uint8_t>(digits[i]);
    push_integer(static_cast<int64_t>(value));
}

bool Reader::step() {
    auto code = number<uint8_t>();
    switch (code) {
        case 0x80: {  // PROTO
            int version = number<uint8_t>();
            if (version > 5) fail_input(path_, ": pickle protocol ", version, " is not known (2 to 5 are)");
            return true;
        }
        case 0x95: take(8); return true;  // FRAME: a hint for buffering
        case '.': return false;           // STOP

        case 'N': push(Kind::none); return true;
        case 0x88: push(Kind::boolean)->integer = 1; return true;
        case 0x89: push(Kind::boolean)->integer = 0; return true;
        case 'J': push_integer(number<int32_t>()); return true;   // BININT
        case 'K': push_integer(number<uint8_t>()); return true;   // BININT1
        case 'M': push_integer(number<uint16_t>()); return true;  // BININT2
        case 0x8a: long_integer(take(number<uint8_t>())); return true;
        case 0x8b: long_integer(take(number<uint32_t>())); return true;
        case 'G': {  // BINFLOAT, big-endian
            uint64_t bits = 0;
            for (char c : take(8)) bits = (bits << 8) | static_cast<uint8_t>(c);
            push(Kind::real)->real = std::bit_cast<double>(bits);
            return true;
        }
        case 'X': push_text(take(number<uint32_t>())); return true;           // BINUNICODE
        case 0x8c: push_text(take(number<uint8_t>())); return true;           // SHORT_BINUNICODE
        case 0x8d: push_text(take(number<uint64_t>())); return true;          // BINUNICODE8
        case 'C': take(number<uint8_t>()), push(Kind::other); return true;    // SHORT_BINBYTES
        case 'B': take(number<uint32_t>()), push(Kind::other); return true;   // BINBYTES
        case 0x8e:                                                            // BINBYTES8
        case 0x96: take(number<uint64_t>()), push(Kind::other); return true;  // BYTEARRAY8

        case '(':
            if (marks_.size() >= kDeepest)
                fail_input(path_, ": the pickle is nested deeper than ", kDeepest, ": refused");
            marks_.push_back(stack_.size());
            return true;
        case '0': pop(); return true;
        case '1': pop_to_mark(); return true;
        case '2': push(top()); return true;

        case ')': push(Kind::tuple); return true;
        case 0x85: push_tuple(1); return true;
        case 0x86: push_tuple(2); return true;
        case 0x87: push_tuple(3); return true;
        case 't': {
            std::vector<Value*> items = pop_to_mark();
            push(Kind::tuple)->items = std::move(items);
            return true;
        }
        case ']': push(Kind::list); return true;
        case 'l': {
            std::vector<Value*> items = pop_to_mark();
            push(Kind::list)->items = std::move(items);
            return true;
        }
        case 'a': {
            Value* item = pop();
            append(top(), Kind::list, {item});
            return true;
        }
        case 'e': {
            std::vector<Value*> items = pop_to_mark();
            append(top(), Kind::list, items);
            return true;
        }
        case '}': push(Kind::dict); return true;
        case 'd': {
            std::vector<Value*> items = pop_to_mark();
            append(push(Kind::dict), Kind::dict, items);
            return true;
        }
        case 's': {
            Value* value = pop();
            Value* key = pop();
            append(top(), Kind::dict, {key, value});
            return true;
        }
        case 'u': {
            std::vector<Value*> items = pop_to_mark();
            append(top(), Kind::dict, items);
            return true;
        }
        case 0x8f: push(Kind::other); return true;  // EMPTY_SET
        case 0x90:                                  // ADDITEMS
            pop_to_mark();
            if (top()->kind != Kind::other) bad("it adds items to what is no set");
            return true;
        case 0x91: pop_to_mark(), push(Kind::other); return true;  // FROZENSET

        case 'q': remember(number<uint8_t>()); return true;
        case 'r': remember(number<uint32_t>()); return true;
        case 0x94: remember(memo_.size()); return true;  // MEMOIZE
        case 'h': recall(number<uint8_t>()); return true;
        case 'j': recall(number<uint32_t>()); return true;

        case 'c': {
            std::string_view module = line();
            global(module, line());
            return true;
        }
        case 0x93: {  // STACK_GLOBAL
            const Value* name = pop();
            const Value* module = pop();
            if (name->kind != Kind::text || module->kind != Kind::text) bad("a name is not text");
            global(module->text, name->text);
            return true;
        }
        case 'R': reduce(); return true;
        case 'Q': persistent(); return true;
        case 'b':  // BUILD: an OrderedDict's or Parameter's attributes
            pop();
            if (top()->kind != Kind::dict && top()->kind != Kind::tensor && top()->kind != Kind::other) {
                bad("it sets attributes of what has none");
            }
            return true;
        default: break;
    }
    char name[8];
    std::snprintf(name, sizeof name, "0x%02x", code);
    fail_input(
        path_, ": the pickle uses opcode ", name, " at byte ", at_ - 1,
        ", which torch.save does not write and which is refused: save the weights again with torch.save");
}

}  // namespace

Pickle read_pickle(std::string_view bytes, const std::string& path) {
    check_input(bytes.size() <= kLargestPickle, path, ": a pickle of ", bytes.size(),
                " bytes is too large (at most ", kLargestPickle, "): save the weights alone");
    Pickle pickle;
    Reader(pickle, bytes, path).run();
    return pickle;
}

}  // namespace sana
