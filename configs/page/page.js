"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const STAGES = {
    portrait: "Find the face and cut it out", weights: "Open the network", prior: "Fit a head to the face",
    views: "Draw it from all sides", dataset: "Keep the views", fit: "Fit the splats",
    export: "Make mesh and contact sheet", formats: "Make the viewer",
  };
  const GROUPS = [
    ["Splats", "splats"], ["Mesh", "mesh"], ["To show around", "turntable"], ["Moves", "avatar"],
  ];
  const LABELS = { html: "Page (.html)", "avatar.html": "Page (.avatar.html)" };
  const jobs = new Map();
  let draft = null, formats = [], shownId = null, source = null, waitingFor = new Set();

  // ---- talking to the server ------------------------------------------------------------------------------------
  const ask = async (method, path, body, raw) => {
    const options = { method, headers: {} };
    if (raw) options.body = body;
    else if (body !== undefined) {
      options.body = JSON.stringify(body);
      options.headers["content-type"] = "application/json";
    }
    let answer;
    try { answer = await fetch(path, options); } catch { throw new Error("The server does not answer; is it still running?"); }
    if (answer.status === 401 && path !== "api/session") { location.hash = "token"; }
    if (answer.ok) return answer.status === 204 ? null : answer.json();
    let why = `The server refused (${answer.status})`;
    try { why = (await answer.json()).detail || why; } catch { /* no sentence came */ }
    throw new Error(why);
  };
  const jobPath = (id, rest) => `api/jobs/${id}${rest ? "/" + rest : ""}`;

  const listen = () => {
    if (source) source.close();
    source = new EventSource("api/events");
    source.addEventListener("open", () => { $("offline").hidden = true; });
    source.addEventListener("error", () => {
      $("offline").hidden = false;
      if (source.readyState === EventSource.CLOSED) setTimeout(start, 3000);
    });
    source.addEventListener("jobs", (event) => {
      jobs.clear();
      for (const job of JSON.parse(event.data)) jobs.set(job.id, job);
      showList();
      route();
    });
    source.addEventListener("job", (event) => {
      const job = JSON.parse(event.data), before = jobs.get(job.id);
      jobs.set(job.id, job);
      showList(before && before.status === job.status && !job.progress === !before.progress ? job : null);
      if (job.id === shownId) showJob(job, before);
    });
    source.addEventListener("deleted", (event) => {
      const id = JSON.parse(event.data);
      jobs.delete(id);
      showList();
      if (id === shownId) location.hash = "new";
    });
  };

  // ---- which view -----------------------------------------------------------------------------------------------
  const show = (name) => {
    for (const view of ["token", "new", "job"]) $(`${view}-view`).hidden = view !== name;
    $("new-link").hidden = name === "new";
  };
  const route = () => {
    const place = location.hash.slice(1);
    if (place.startsWith("token")) { shownId = null; show("token"); return; }
    const job = jobs.get(place);
    if (job) {
      const isOther = shownId !== job.id;
      shownId = job.id;
      show("job");
      showJob(job, null);
      if (isOther) { window.scrollTo(0, 0); $("main").focus({ preventScroll: true }); }
    } else {
      shownId = null;
      $("panel-turn").replaceChildren();
      show("new");
      document.title = "dp360";
    }
    markList();
  };
  window.addEventListener("hashchange", route);

  // ---- a new head -----------------------------------------------------------------------------------------------
  const say = (sentence) => { $("new-error").textContent = sentence; };
  const newState = (state) => {
    $("choose").hidden = state !== "choose";
    $("looking").hidden = state !== "looking";
    $("settings").hidden = state !== "settings";
  };
  const look = async (asking) => {
    if (!$("looking").hidden) return;
    if (location.hash !== "#new") location.hash = "new";
    say("");
    newState("looking");
    try {
      if (draft) ask("DELETE", jobPath(draft.id)).catch(() => {});
      draft = null;
      draft = await asking();
      showDraft();
      try { await $("preview").decode(); } catch { /* the picture is missed, nothing else */ }
      newState("settings");
      $("make").focus({ preventScroll: true });
    } catch (error) {
      newState("choose");
      say(error.message);
    }
    $("file").value = "";
  };
  const takeFile = (file) => {
    if (file) look(() => ask("POST", `api/portraits?name=${encodeURIComponent(file.name || "pasted.png")}`, file, true));
  };
  const showDraft = () => {
    const faces = $("faces");
    for (const old of faces.querySelectorAll(".face")) old.remove();
    $("preview").src = jobPath(draft.id, "pictures/preview");
    $("preview").alt = `The picture ${draft.name}`;
    draft.faces.forEach((box, index) => {
      const label = document.createElement("label"), input = document.createElement("input");
      const frame = document.createElement("span");
      label.className = "face";
      ["left", "top", "width", "height"].forEach((side, k) => { label.style[side] = `${100 * box[k]}%`; });
      Object.assign(input, { type: "radio", name: "face", value: index, checked: index === 0 });
      input.setAttribute("aria-label", `Face ${index + 1} of ${draft.faces.length}`);
      if (draft.faces.length > 1) {
        const number = document.createElement("b");
        number.textContent = index + 1;
        frame.append(number);
      }
      label.append(input, frame);
      faces.append(label);
    });
    const form = $("settings");
    form.elements.no_face.checked = !draft.has_face;
    $("faces-hint").textContent = !draft.has_face
      ? "No face was found. The head can be placed by its outline."
      : draft.faces.length > 1 ? "Several faces: choose one." : "";
    $("draft-notes").replaceChildren(...draft.warnings.map(note));
  };
  const note = (sentence) => {
    const item = document.createElement("li");
    item.textContent = sentence;
    return item;
  };
  $("file").addEventListener("change", () => takeFile($("file").files[0]));
  $("example").addEventListener("click", () => look(() => ask("POST", "api/example")));
  $("other").addEventListener("click", () => { newState("choose"); say(""); $("file").focus(); });
  $("dice").addEventListener("click", () => { $("seed").value = Math.floor(Math.random() * 100000); });
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
    if (file) { event.preventDefault(); takeFile(file); }
  });
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      $("drop").classList.add("over");
    });
  }
  for (const kind of ["dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      if (kind === "drop") { event.preventDefault(); takeFile(event.dataTransfer.files[0]); }
      if (kind === "drop" || !event.relatedTarget) $("drop").classList.remove("over");
    });
  }
  $("settings").addEventListener("submit", async (event) => {
    event.preventDefault();
    const form = $("settings").elements, several = draft.faces.length > 1;
    const chosen = several ? Number(document.querySelector("input[name=face]:checked").value) : null;
    const settings = {
      quality: form.quality.value, generator: form.generator.value, seed: Number(form.seed.value), crop: form.crop.value,
      light: form.light.value, no_glasses: form.no_glasses.checked, no_face: form.no_face.checked,
      face_index: form.no_face.checked ? null : chosen,
    };
    say("");
    $("make").disabled = true;
    try {
      const job = await ask("POST", jobPath(draft.id, "start"), settings);
      if (!jobs.has(job.id)) jobs.set(job.id, job);  // an event that came first knows more: it may have ended already
      draft = null;
      newState("choose");
      showList();
      location.hash = job.id;
    } catch (error) { say(error.message); }
    $("make").disabled = false;
  });

  // ---- one head -------------------------------------------------------------------------------------------------
  const duration = (seconds) => {
    if (seconds < 55) return `${Math.max(5, Math.ceil(seconds / 5) * 5)} s`;
    return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
  };
  const about = (job) => {
    const chosen = [`${job.settings.quality} quality`, `seed ${job.settings.seed}`];
    if (job.status === "done" && job.seconds) chosen.push(`made in ${duration(job.seconds)}`);
    return chosen.join(", ");
  };
  const showJob = (job, before) => {
    const isBusy = job.status === "queued" || job.status === "running";
    document.title = isBusy && job.progress ? `${Math.floor(100 * job.progress.unit)} % ${job.name}` : `${job.name} - dp360`;
    $("job-title").textContent = job.name;
    $("job-about").textContent = about(job);
    $("job-error").textContent = job.status === "cancelled" ? "It was cancelled." : job.error || "";
    $("cancel").hidden = !isBusy;
    $("again").hidden = !["failed", "cancelled"].includes(job.status);
    $("running").hidden = !isBusy;
    $("done").hidden = job.status !== "done";
    if (isBusy) showRunning(job);
    if (job.status === "done") showDone(job, before);
    else $("panel-turn").replaceChildren();
  };
  const setPicture = (image, path) => { if (image.getAttribute("src") !== path) image.src = path; };
  const showRunning = (job) => {
    setPicture($("running-preview"), jobPath(job.id, "pictures/preview"));
    const progress = job.progress, names = Object.keys(STAGES), now = progress ? names.indexOf(progress.stage) : -1;
    $("bar").value = progress ? progress.unit : 0;
    const ahead = job.ahead === 1 ? "one head is before it" : `${job.ahead} heads are before it`;
    const step = progress ? STAGES[progress.stage] : job.status === "queued" ? "Waiting" : "Starting";
    if ($("step").textContent !== step) { $("step").textContent = step; $("said").textContent = step; }
    $("left").textContent = progress ? `about ${duration(progress.left_s)} left`
      : job.status === "queued" && job.ahead ? ahead : "";
    const usesNetwork = job.settings.generator === "compact";
    $("stages").replaceChildren(...names.filter((name) => name !== "weights" || usesNetwork).map((name) => {
      const item = document.createElement("li"), place = names.indexOf(name);
      item.textContent = STAGES[name];
      item.className = place < now ? "past" : place === now ? "now" : "";
      if (place === now) item.setAttribute("aria-current", "step");
      return item;
    }));
  };
  const showDone = (job) => {
    const panel = $("panel-turn"), path = jobPath(job.id, "viewer");
    if (!panel.firstChild || panel.firstChild.getAttribute("src") !== path) {
      const frame = document.createElement("iframe");
      frame.title = "The head in 3D: drag to turn it";
      frame.setAttribute("sandbox", "allow-scripts");
      frame.src = path;
      panel.replaceChildren(frame);
      choose("turn");
    }
    setPicture($("before"), jobPath(job.id, "pictures/portrait"));
    setPicture($("after"), jobPath(job.id, "pictures/front"));
    setPicture($("sheet"), jobPath(job.id, "pictures/sheet"));
    $("sheet-link").href = jobPath(job.id, "pictures/sheet");
    $("notes").replaceChildren(...job.warnings.map(note));
    showFiles(job);
  };
  const showFiles = (job) => {
    const groups = [];
    const there = new Set([...job.made, "ply", "glb", "png"]);
    const busy = job.progress ? `Making ${job.making.join(", ")}: about ${duration(job.progress.left_s)} left`
      : job.making.length ? `Making ${job.making.join(", ")}` : "";
    if ($("files-said").textContent !== busy) $("files-said").textContent = busy;
    for (const ending of [...waitingFor]) {
      if (there.has(ending)) { waitingFor.delete(ending); save(jobPath(job.id, `files/${ending}`)); }
    }
    const state = JSON.stringify([job.id, [...there], job.making, formats.length]);
    if ($("files").dataset.state === state) return;
    $("files").dataset.state = state;
    for (const [title, kind] of GROUPS) {
      const endings = formats.filter((each) => (each.ending === "html" ? "turntable" : each.kind) === kind);
      groups.push([title, endings.map((each) => fileButton(job, each.ending, there))]);
    }
    groups.push(["All the rest", [fileLink("Contact sheet (.png)", jobPath(job.id, "files/png")),
      fileLink("Views as a data set (.zip)", jobPath(job.id, "dataset"))]]);
    $("files").replaceChildren(...groups.flatMap(([title, items]) => {
      const heading = document.createElement("h4"), row = document.createElement("div");
      heading.textContent = title;
      row.className = "actions";
      row.append(...items);
      return [heading, row];
    }));
  };
  const fileLink = (text, path) => {
    const link = document.createElement("a");
    link.className = "button there";
    link.href = path;
    link.textContent = text;
    link.setAttribute("download", "");
    return link;
  };
  const fileButton = (job, ending, there) => {
    const text = LABELS[ending] || `.${ending}`;
    if (there.has(ending)) return fileLink(text, jobPath(job.id, `files/${ending}`));
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    const isMaking = job.making.includes(ending);
    button.disabled = isMaking;
    button.setAttribute("aria-busy", String(isMaking));
    button.addEventListener("click", async () => {
      button.disabled = true;
      button.setAttribute("aria-busy", "true");
      waitingFor.add(ending);
      try { await ask("POST", jobPath(job.id, `formats/${ending}`)); } catch (error) {
        waitingFor.delete(ending);
        $("job-error").textContent = error.message;
      }
    });
    return button;
  };
  const save = (path) => { const link = fileLink("", path); document.body.append(link); link.click(); link.remove(); };

  const tabs = ["turn", "compare", "sheet"];
  const choose = (name, focus) => {
    for (const each of tabs) {
      const tab = $(`tab-${each}`), isChosen = each === name;
      tab.setAttribute("aria-selected", String(isChosen));
      tab.tabIndex = isChosen ? 0 : -1;
      $(`panel-${each}`).hidden = !isChosen;
      if (isChosen && focus) tab.focus();
    }
  };
  tabs.forEach((name, index) => {
    $(`tab-${name}`).addEventListener("click", () => choose(name));
    $(`tab-${name}`).addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) { event.preventDefault(); choose(tabs[(index + step + tabs.length) % tabs.length], true); }
    });
  });
  const slide = () => { $("compare").style.setProperty("--from", `${100 - $("share").value}%`); };
  $("share").addEventListener("input", slide);
  $("compare").addEventListener("pointermove", (event) => {
    if (event.pointerType === "mouse" && !event.buttons) return;
    const box = $("compare").getBoundingClientRect();
    $("share").value = 100 - 100 * (event.clientX - box.left) / box.width;
    slide();
  });

  const act = async (method, rest, body) => {
    $("job-error").textContent = "";
    try { await ask(method, jobPath(shownId, rest), body); } catch (error) { $("job-error").textContent = error.message; }
  };
  $("cancel").addEventListener("click", () => act("POST", "cancel"));
  $("again").addEventListener("click", () => act("POST", "start", jobs.get(shownId).settings));
  $("delete").addEventListener("click", () => $("sure").showModal());
  $("sure").addEventListener("close", () => {
    if ($("sure").returnValue === "yes" && shownId) act("DELETE", "");
    $("sure").returnValue = "";
  });

  // ---- all heads ------------------------------------------------------------------------------------------------
  const words = (job) => ({
    queued: job.ahead ? `${job.ahead + 1}. in line` : "next", failed: "failed", cancelled: "cancelled", done: job.settings.quality,
    running: job.progress ? `${Math.floor(100 * job.progress.unit)} %` : "starting",
  })[job.status];
  const showList = (only) => {
    if (only) {
      const entry = $("heads").querySelector(`a[href="#${only.id}"]`);
      if (entry) {
        entry.querySelector(".name span").textContent = words(only);
        if (entry.querySelector("progress") && only.progress) entry.querySelector("progress").value = only.progress.unit;
        return;
      }
    }
    const all = [...jobs.values()].sort((a, b) => b.number - a.number);
    $("no-heads").hidden = all.length > 0;
    $("heads").replaceChildren(...all.map((job) => {
      const item = document.createElement("li"), link = document.createElement("a"), image = document.createElement("img");
      const line = document.createElement("div"), name = document.createElement("b"), state = document.createElement("span");
      link.href = `#${job.id}`;
      image.src = jobPath(job.id, job.status === "done" ? "pictures/thumbnail" : "pictures/preview");
      image.alt = "";
      image.loading = "lazy";
      name.textContent = job.name;
      state.textContent = words(job);
      line.className = `name ${job.status}`;
      line.append(name, state);
      link.append(image);
      if (job.status === "running") {
        const bar = document.createElement("progress");
        bar.max = 1;
        bar.value = job.progress ? job.progress.unit : 0;
        bar.setAttribute("aria-label", `Progress of ${job.name}`);
        link.append(bar);
      }
      link.append(line);
      item.append(link);
      return item;
    }));
    markList();
  };
  const markList = () => {
    for (const link of $("heads").querySelectorAll("a")) {
      if (link.hash === `#${shownId}`) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  };

  // ---- the token ------------------------------------------------------------------------------------------------
  const showToken = async (token) => {
    await ask("POST", "api/session", { token });
    history.replaceState(null, "", "#new");
    await start();
  };
  $("token-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    $("token-error").textContent = "";
    try { await showToken($("token-input").value.trim()); } catch (error) { $("token-error").textContent = error.message; }
  });

  const start = async () => {
    const given = location.hash.match(/^#token=(.+)$/);
    if (given) {
      try { await showToken(decodeURIComponent(given[1])); return; } catch (error) {
        history.replaceState(null, "", "#token");
        $("token-error").textContent = error.message;
      }
    }
    try { formats = await ask("GET", "api/formats"); } catch {
      if (!location.hash.startsWith("#token")) { $("offline").hidden = false; setTimeout(start, 3000); }
      route();
      return;
    }
    listen();
  };
  start();
})();
