// Whether this browser offers a GPU to WebGPU. One that is emulated by the processor is none: it is slower than that.

let asked = null;

export function hasGpu() {
  asked ??= ask();
  return asked;
}

async function ask() {
  try {
    const adapter = await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" });
    return Boolean(adapter) && !adapter.info?.isFallbackAdapter;
  } catch (error) {
    console.warn(`WebGPU is not used: ${error.message}`);
    return false;
  }
}
