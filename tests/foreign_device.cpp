// A device of PyTorch that is not the processor, though it computes there: it finds what would fail on a GPU.
//
// Its tensors have a device of their own. Every operator runs as on the processor, once it has been seen that nothing
// lies on the wrong side: as a GPU's kernels do, it takes numbers (tensors without dimensions) and indices from the
// processor, and refuses everything else of it.

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/view_native.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_as_complex_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <ATen/ops/resize_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/library.h>

namespace {

constexpr auto FOREIGN = c10::DeviceType::PrivateUse1;

struct Memory final : c10::Allocator {
  static void give_back(void* place) { c10::free_cpu(place); }
  c10::DataPtr allocate(size_t bytes) override {
    void* place = c10::alloc_cpu(bytes);
    return {place, place, &give_back, c10::Device(FOREIGN, 0)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &give_back; }
  void copy_data(void* to, const void* from, std::size_t bytes) const override { default_copy_data(to, from, bytes); }
};

Memory memory;
REGISTER_ALLOCATOR(FOREIGN, &memory);

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return FOREIGN; }
  c10::Device exchangeDevice(c10::Device) const override { return {FOREIGN, 0}; }
  c10::Device getDevice() const override { return {FOREIGN, 0}; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device device) const override { return c10::Stream(c10::Stream::DEFAULT, device); }
  c10::Stream exchangeStream(c10::Stream stream) const override { return stream; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
};

Hooks hooks;
const bool hooked = [] {
  at::RegisterPrivateUse1HooksInterface(&hooks);
  return true;
}();

// The same memory, seen from the processor.
at::Tensor here(const at::Tensor& tensor) {
  if (tensor.device().type() != FOREIGN) return tensor;
  auto options = tensor.options().device(c10::kCPU).requires_grad(false);
  return at::from_blob(tensor.mutable_data_ptr(), tensor.sizes(), tensor.strides(), options);
}

at::Tensor empty(
    at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>, std::optional<at::Device>,
    std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(
      size, &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), c10::dtype_or_default(dtype), format);
}

at::Tensor empty_strided(
    at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
    std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(
      size, stride, &memory, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), c10::dtype_or_default(dtype));
}

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool) {
  at::NoGradGuard no_grad;
  here(to).copy_(here(from));
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  if (to.sizes() != from.sizes()) to.resize_(from.sizes());
  return copy_from(from, to, false);
}

at::Scalar read_number(const at::Tensor& tensor) { return here(tensor).item(); }

const at::Tensor& resize(const at::Tensor& tensor, at::IntArrayRef size, std::optional<at::MemoryFormat>) {
  if (tensor.sizes() == size) return tensor;
  auto bytes = at::detail::computeStorageNbytesContiguous(size, tensor.itemsize(), tensor.storage_offset());
  auto storage = tensor.storage();
  if (storage.nbytes() < bytes) {
    auto larger = memory.allocate(bytes);
    std::memcpy(larger.get(), storage.data(), storage.nbytes());
    storage.set_data_ptr(std::move(larger));
    storage.set_nbytes(bytes);
  }
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous(size);
  return tensor;
}

at::Tensor& set_storage(
    at::Tensor& tensor, at::Storage source, int64_t offset, at::IntArrayRef size, at::IntArrayRef stride) {
  return at::native::set_storage_cpu_(tensor, std::move(source), offset, size, stride);
}

at::Tensor& set_whole_storage(at::Tensor& tensor, at::Storage source) {
  auto length = static_cast<int64_t>(source.nbytes() / tensor.itemsize());
  return at::native::set_storage_cpu_(tensor, std::move(source), 0, {length});
}

bool takes_indices(const std::string& name) {
  return name == "aten::index.Tensor" || name == "aten::index_put_" || name == "aten::_index_put_impl_" ||
      name == "aten::index_put" || name == "aten::index.Tensor_out";
}

void run_here(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  auto name = schema.name() + (schema.overload_name().empty() ? "" : "." + schema.overload_name());
  auto arguments = torch::jit::last(*stack, schema.arguments().size());
  bool foreign = false, strange = false;
  auto look = [&](const at::Tensor& tensor) {
    if (!tensor.defined()) return;
    if (tensor.device().type() == FOREIGN) foreign = true;
    else if (tensor.dim() > 0) strange = true;
  };
  for (size_t at = 0; at < arguments.size(); ++at) {
    const auto& value = arguments[at];
    if (takes_indices(name) && at == 1) continue;
    if (value.isTensor()) look(value.toTensor());
    else if (value.isTensorList()) for (const auto& each : value.toTensorVector()) look(each);
    else if (value.isOptionalTensorList())
      for (const auto& each : value.toOptionalTensorList())
        if (static_cast<std::optional<at::Tensor>>(each)) look(*static_cast<std::optional<at::Tensor>>(each));
  }
  TORCH_CHECK(!(foreign && strange), "tensors of two devices meet in ", name);
  at::native::cpu_fallback(op, stack);
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &read_number);
  m.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  m.impl("view", TORCH_FN(at::native::view));
  m.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  m.impl("unfold", TORCH_FN(at::native::unfold));
  m.impl("view_as_complex", TORCH_FN(at::native::view_as_complex));
  m.impl("view_as_real", TORCH_FN(at::native::view_as_real));
  m.impl("resize_", &resize);
  m.impl("set_.source_Storage", &set_whole_storage);
  m.impl("set_.source_Storage_storage_offset", &set_storage);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&run_here>()); }

}  // namespace
