# The CUDA backend: kernels for Hopper (90a) and RTX 50xx (120a). The kernel table is empty so far: ops report by name
# that they have no implementation on the device.
enable_language(CUDA)
# CMake 3.25 does not know nvcc's C++20 flag.
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()
find_package(CUDAToolkit REQUIRED)
file(GLOB cuda_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/ops/cuda/*.cu ${CMAKE_SOURCE_DIR}/src/ops/cuda/*.cpp)
target_sources(sana_ops PRIVATE ${cuda_sources})
set_target_properties(sana_ops PROPERTIES CUDA_ARCHITECTURES "90a-real;120a-real")

target_link_libraries(sana_ops PRIVATE CUDA::cudart)
