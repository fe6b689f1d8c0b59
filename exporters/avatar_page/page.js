(() => {
  "use strict";
  const element = (id) => document.getElementById(id);
  const facts = JSON.parse(element("facts").textContent);
  const bytes = (id) => Uint8Array.from(atob(element(id).textContent), (letter) => letter.charCodeAt(0));
  const say = (text) => { element("message").textContent = text; };
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const degrees = Math.PI / 180;

  // ---- the scene -------------------------------------------------------------------------------------------------
  const canvas = element("stage");
  let renderer;
  try {
    renderer = new THREE.WebGLRenderer({ canvas, antialias: true, preserveDrawingBuffer: true });
  } catch {
    say("This browser cannot draw in 3D: WebGL is missing or switched off.");
    return;
  }
  renderer.setPixelRatio(Math.min(window.devicePixelRatio || 1, 2));
  const scene = new THREE.Scene();
  scene.background = new THREE.Color(facts.background);
  const camera = new THREE.PerspectiveCamera(2 * Math.atan(0.5 / facts.focal) / degrees, 1, 0.01, 20);
  const controls = new THREE.OrbitControls(camera, canvas);
  controls.enableDamping = false;
  controls.enablePan = false;
  controls.minDistance = facts.distance * 0.35;
  controls.maxDistance = facts.distance * 2;
  controls.autoRotateSpeed = 4;
  const sun = new THREE.DirectionalLight(0xffffff, 2.4);
  const sky = new THREE.HemisphereLight(0xffffff, 0x777066, 0.7);
  scene.add(sun, sky, sun.target);
  let meshes = [], joints = {}, dirty = true, ready = false;
  const draw = () => { dirty = true; };

  const place = (azimuth, elevation, distance = facts.distance) => {
    const a = azimuth * degrees, e = elevation * degrees;
    camera.position.set(
      distance * Math.sin(a) * Math.cos(e), distance * Math.sin(e), distance * Math.cos(a) * Math.cos(e));
    controls.target.set(0, facts.middle, 0);
    camera.position.y += facts.middle;
    controls.update();
    draw();
  };
  const shine = () => {
    const a = Number(element("light-azimuth").value) * degrees, e = Number(element("light-elevation").value) * degrees;
    sun.position.set(Math.sin(a) * Math.cos(e), Math.sin(e), Math.cos(a) * Math.cos(e));
    sky.intensity = Number(element("light-ambient").value);
    draw();
  };
  const resize = () => {
    const box = canvas.parentElement.getBoundingClientRect();
    renderer.setSize(box.width, box.height, false);
    camera.aspect = box.width / Math.max(box.height, 1);
    camera.fov = 2 * Math.atan(0.5 / facts.focal / Math.min(camera.aspect, 1)) / degrees;
    camera.updateProjectionMatrix();
    draw();
  };

  // ---- the pose --------------------------------------------------------------------------------------------------
  const weights = new Float32Array(facts.names.length);
  const head = [0, 0, 0]; // yaw, pitch, roll in degrees
  const extra = { weights: new Float32Array(facts.names.length), head: [0, 0, 0] }; // what the pointer adds
  const sliders = new Map();
  const apply = () => {
    for (const mesh of meshes) {
      for (let k = 0; k < weights.length; k++) {
        mesh.morphTargetInfluences[k] = clamp(weights[k] + extra.weights[k], 0, 1);
      }
    }
    const turn = head.map((angle, k) => clamp(angle + extra.head[k], -60, 60) * degrees);
    for (const [name, share] of [["neck", facts.neck_share], ["head", 1 - facts.neck_share]]) {
      if (joints[name]) joints[name].rotation.set(turn[1] * share, turn[0] * share, turn[2] * share, "YXZ");
    }
    draw();
  };
  const show = (name, value) => {
    const slider = sliders.get(name);
    if (!slider) return;
    slider.input.value = value;
    slider.output.textContent = slider.isAngle ? `${Math.round(value)}°` : Number(value).toFixed(2);
  };
  const setPose = (pose, turn = [0, 0, 0]) => {
    facts.names.forEach((name, k) => { weights[k] = clamp(pose[name] ?? 0, 0, 1); show(name, weights[k]); });
    facts.head_names.forEach((name, k) => { head[k] = clamp(turn[k], -60, 60); show(name, head[k]); });
    apply();
  };
  const addSlider = (parent, name, isAngle, change) => {
    const row = document.createElement("label");
    row.className = "slider";
    const text = document.createElement("span");
    text.textContent = name;
    const input = document.createElement("input");
    Object.assign(input, { type: "range", min: isAngle ? -60 : 0, max: isAngle ? 60 : 1, step: isAngle ? 1 : 0.01, value: 0 });
    input.id = `slider-${name}`;
    const output = document.createElement("output");
    output.htmlFor = input.id;
    row.append(text, input, output);
    parent.append(row);
    sliders.set(name, { input, output, isAngle });
    input.addEventListener("input", () => { stop(); change(Number(input.value)); show(name, input.value); apply(); });
    show(name, 0);
  };
  facts.head_names.forEach((name, k) => {
    addSlider(element("head-sliders"), name, true, (value) => { head[k] = value; });
  });
  for (const [group, names] of Object.entries(facts.groups)) {
    const part = document.createElement("details");
    const title = document.createElement("summary");
    title.textContent = group;
    part.append(title);
    for (const name of names) {
      const k = facts.names.indexOf(name);
      addSlider(part, name, false, (value) => { weights[k] = value; });
    }
    element("sliders").append(part);
  }
  for (const [name, pose] of Object.entries(facts.presets)) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", () => { stop(); setPose(pose); say(`Expression: ${name}`); });
    element("presets").append(button);
  }

  // ---- the pointer, the light, pictures --------------------------------------------------------------------------
  const look = (x, y) => { // -1 to 1: right of the picture and up
    const put = (name, value) => { extra.weights[facts.names.indexOf(name)] = Math.max(0, value); };
    extra.head = [16 * x, -10 * y, 0];
    put("eyeLookOutLeft", 0.7 * x); put("eyeLookInRight", 0.7 * x);
    put("eyeLookInLeft", -0.7 * x); put("eyeLookOutRight", -0.7 * x);
    for (const side of ["Left", "Right"]) { put(`eyeLookUp${side}`, 0.7 * y); put(`eyeLookDown${side}`, -0.7 * y); }
    apply();
  };
  window.addEventListener("pointermove", (event) => {
    if (!element("follow").checked) return;
    const box = canvas.getBoundingClientRect();
    const x = 2 * (event.clientX - box.left) / box.width - 1, y = 1 - 2 * (event.clientY - box.top) / box.height;
    look(clamp(x, -1, 1), clamp(y, -1, 1));
  });
  element("follow").addEventListener("change", () => {
    extra.weights.fill(0);
    extra.head = [0, 0, 0];
    apply();
  });
  element("turntable").addEventListener("change", (event) => { controls.autoRotate = event.target.checked; draw(); });
  element("lit").addEventListener("change", (event) => {
    for (const mesh of meshes) mesh.material = event.target.checked ? mesh.userData.lit : mesh.userData.unlit;
    draw();
  });
  for (const id of ["light-azimuth", "light-elevation", "light-ambient"]) {
    element(id).addEventListener("input", () => {
      if (!element("lit").checked) { element("lit").checked = true; element("lit").dispatchEvent(new Event("change")); }
      shine();
    });
  }
  element("front").addEventListener("click", () => place(0, 0));
  element("left").addEventListener("click", () => place(70, 0));
  element("right").addEventListener("click", () => place(-70, 0));
  element("screenshot").addEventListener("click", () => {
    renderer.render(scene, camera);
    canvas.toBlob((blob) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(blob);
      link.download = "head.png";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
      say("Saved head.png");
    });
  });
  canvas.addEventListener("keydown", (event) => {
    const offset = camera.position.clone().sub(controls.target);
    const distance = offset.length();
    let azimuth = Math.atan2(offset.x, offset.z) / degrees, elevation = Math.asin(offset.y / distance) / degrees, far = distance;
    if (event.key === "ArrowLeft") azimuth -= 5;
    else if (event.key === "ArrowRight") azimuth += 5;
    else if (event.key === "ArrowUp") elevation += 5;
    else if (event.key === "ArrowDown") elevation -= 5;
    else if (event.key === "+" || event.key === "=") far /= 1.1;
    else if (event.key === "-") far *= 1.1;
    else return;
    event.preventDefault();
    place(azimuth, clamp(elevation, -85, 85), clamp(far, controls.minDistance, controls.maxDistance));
  });

  // ---- a take of Live Link Face ----------------------------------------------------------------------------------
  let take = null, startedAt = null;
  function stop() { if (startedAt !== null) { startedAt = null; element("play").textContent = "Play"; } }
  const readTake = (text) => {
    const rows = text.replace(/^\uFEFF/, "").split(/\r?\n/).filter((row) => row.trim()).map((row) => row.split(","));
    if (!rows.length) throw new Error("the file is empty");
    const header = rows[0].map((cell) => cell.trim());
    const columnOf = (name) => header.indexOf(name[0].toUpperCase() + name.slice(1));
    const columns = facts.names.map(columnOf), turns = ["HeadYaw", "HeadPitch", "HeadRoll"].map((name) => header.indexOf(name));
    if (columns.filter((column) => column >= 0).length < 5) {
      throw new Error("expected the columns of Live Link Face: Timecode, BlendShapeCount, EyeBlinkLeft, ...");
    }
    const number = (row, column, line) => {
      if (column < 0) return 0;
      const cell = (row[column] ?? "").trim(), value = Number(cell);
      if (!cell || !Number.isFinite(value)) throw new Error(`line ${line} has no number for ${header[column]}`);
      return value;
    };
    const body = rows.slice(1).map((row, k) => ({
      weights: columns.map((column) => clamp(number(row, column, k + 2), 0, 1)),
      head: turns.map((column) => number(row, column, k + 2) / degrees),
      time: /^(\d+):(\d+):(\d+)[:;](\d+(?:\.\d+)?)$/.exec((row[header.indexOf("Timecode")] ?? "").trim()),
    }));
    if (!body.length) throw new Error("it has columns and no frames");
    const highest = Math.floor(Math.max(...body.map((frame) => Number(frame.time?.[4] ?? 59)))) + 1;
    let rate = [24, 25, 30, 48, 50, 60, 120].find((candidate) => candidate >= highest) ?? highest;
    if (body.length < rate) rate = Math.max(rate, 60);
    const seconds = body.map(({ time }, k) => time
      ? 3600 * Number(time[1]) + 60 * Number(time[2]) + Number(time[3]) + Number(time[4]) / rate : k / 60);
    body.forEach((frame, k) => { frame.at = Math.max(0, seconds[k] - seconds[0]); });
    return body;
  };
  const openTake = async (file) => {
    try {
      take = readTake(await file.text());
    } catch (error) {
      say(`Cannot read ${file.name}: ${error.message}`);
      return;
    }
    element("play").disabled = false;
    say(`${file.name}: ${take.length} frames, ${take[take.length - 1].at.toFixed(1)} s`);
    play();
  };
  const play = () => { startedAt = performance.now(); element("play").textContent = "Stop"; };
  element("play").addEventListener("click", () => { if (startedAt === null) play(); else stop(); });
  element("csv").addEventListener("change", (event) => { if (event.target.files[0]) openTake(event.target.files[0]); });
  for (const name of ["dragenter", "dragover"]) {
    window.addEventListener(name, (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  }
  window.addEventListener("dragleave", () => document.body.classList.remove("dropping"));
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    if (event.dataTransfer.files[0]) openTake(event.dataTransfer.files[0]);
  });
  const showTakeAt = (time) => {
    const last = take[take.length - 1];
    let k = take.findIndex((frame) => frame.at > time);
    if (k < 0) k = take.length;
    const a = take[Math.max(k - 1, 0)], b = take[Math.min(k, take.length - 1)];
    const share = b.at > a.at ? (time - a.at) / (b.at - a.at) : 0;
    const pose = {};
    facts.names.forEach((name, n) => { pose[name] = a.weights[n] + (b.weights[n] - a.weights[n]) * share; });
    setPose(pose, a.head.map((angle, n) => angle + (b.head[n] - angle) * share));
    element("progress").value = last.at ? Math.min(1, time / last.at) : 1;
    if (time >= last.at) stop();
  };

  // ---- start -----------------------------------------------------------------------------------------------------
  const loop = () => {
    requestAnimationFrame(loop);
    if (startedAt !== null && take) showTakeAt((performance.now() - startedAt) / 1000);
    if (controls.update() || controls.autoRotate) dirty = true;
    if (!dirty || !ready) return;
    dirty = false;
    renderer.render(scene, camera);
  };
  controls.addEventListener("change", draw);
  window.addEventListener("resize", resize);
  say("Opening the head ...");
  const litPicture = (async () => createImageBitmap(
    new Blob([bytes("lit-picture")], { type: "image/jpeg" }), { colorSpaceConversion: "none" }))();
  const show3d = async (gltf) => {
    const own = new THREE.Texture(await litPicture);
    own.colorSpace = THREE.SRGBColorSpace;
    own.flipY = false;
    own.needsUpdate = true;
    scene.add(gltf.scene);
    gltf.scene.traverse((node) => {
      if (node.isBone) joints[node.name] = node;
      if (!node.isMesh) return;
      node.frustumCulled = false;
      meshes.push(node);
      node.userData.lit = node.material;
      node.userData.unlit = new THREE.MeshBasicMaterial({ map: own, side: node.material.side });
      node.material = node.userData.unlit;
    });
    resize();
    place(0, 0);
    shine();
    apply();
    ready = true;
    renderer.render(scene, camera);
    say("Drag to turn, scroll to zoom; the sliders move the face.");
    document.body.dataset.ready = "true";
  };
  (async () => {
    const packed = new Blob([bytes("model")]).stream().pipeThrough(new DecompressionStream("gzip"));
    const model = await new Response(packed).arrayBuffer();
    await show3d(await new THREE.GLTFLoader().parseAsync(model, ""));
  })().catch((error) => say(`The head cannot be shown: ${error.message ?? error}`));
  loop();

  // For scripts and tests: the same that the controls do.
  window.avatar = {
    names: facts.names,
    setPose, place, look,
    render: () => { renderer.render(scene, camera); },
    readTake,
  };
})();
