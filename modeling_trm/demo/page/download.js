// Files of this page, with how much has come. A packed file is gzip; see build.py for its name.

// The unpacked bytes of { path, bytes }; onProgress(received) counts packed bytes, of which there are `bytes` in all.
export async function unpack({ path }, onProgress) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: the server answered ${answer.status}`);
  let received = 0;
  const counted = new TransformStream({
    transform(part, controller) {
      received += part.byteLength;
      onProgress(received);
      controller.enqueue(part);
    },
  });
  const stream = answer.body.pipeThrough(counted).pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
