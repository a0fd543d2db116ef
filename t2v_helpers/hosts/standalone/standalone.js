// What the WebUI's page brings along and the tab uses, for the tab's own page.

const text2videoLoaded = [];
const POLL = 400; // milliseconds
const PATIENCE = 40; // polls without an answer, or without the task being known

window.gradioApp = () => document;
window.onUiLoaded = (callback) => text2videoLoaded.push(callback);
window.randomId = () => `task(${crypto.getRandomValues(new Uint32Array(4)).join("")})`;

window.showSubmitButtons = function(tab, show) {
    const display = {interrupt: !show, skip: !show, interrupting: false};
    for (const [name, shown] of Object.entries(display)) {
        document.getElementById(`${tab}_${name}`).style.display = shown ? "block" : "none";
    }
};

function formatTime(seconds) {
    const pad = (value) => String(Math.floor(value)).padStart(2, "0");
    if (seconds >= 3600) return `${pad(seconds / 3600)}:${pad((seconds / 60) % 60)}:${pad(seconds % 60)}`;
    return seconds >= 60 ? `${pad(seconds / 60)}:${pad(seconds % 60)}` : `${Math.floor(seconds)}s`;
}

// Undefined where the server cannot be reached, as for a moment it may be.
async function progressOf(task, preview) {
    const body = JSON.stringify({id_task: task, id_live_preview: preview});
    try {
        const answer = await fetch("internal/progress", {method: "POST", headers: {"Content-Type": "application/json"}, body});
        return answer.ok ? await answer.json() : undefined;
    } catch {
        return undefined;
    }
}

// Shows a bar before the container and the preview inside the gallery until the task has ended.
window.requestProgress = async function(task, container, gallery, atEnd) {
    const bar = Object.assign(document.createElement("div"), {className: "progressDiv"});
    const inner = Object.assign(document.createElement("div"), {className: "progress"});
    bar.append(inner);
    container.before(bar);
    const picture = Object.assign(document.createElement("div"), {className: "livePreview"});
    let preview = -1;
    let patience = PATIENCE;
    function show(state) {
        inner.style.width = `${100 * state.progress}%`;
        const eta = state.eta ? ` ETA: ${formatTime(state.eta)}` : "";
        inner.textContent = `${state.textinfo} ${Math.round(100 * state.progress)}%${eta}`;
        if (state.live_preview) {
            const image = new Image();
            image.src = state.live_preview;
            picture.replaceChildren(image);
            if (!picture.isConnected) gallery.prepend(picture);
        }
        preview = state.id_live_preview;
    }
    try {
        while (patience > 0) {
            const state = await progressOf(task, preview);
            if (state?.completed) break;
            patience = state?.active || state?.queued ? PATIENCE : patience - 1;
            if (state) show(state);
            await new Promise((resolve) => setTimeout(resolve, POLL));
        }
    } finally {
        bar.remove();
        picture.remove();
        atEnd();
    }
};

document.addEventListener("keydown", (event) => {
    const visible = (name) => document.getElementById(`text2video_${name}`).style.display === "block";
    const press = (name) => document.getElementById(`text2video_${name}`).click();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        if (!visible("interrupt") && !visible("interrupting")) press("generate");
        event.preventDefault();
    } else if (event.key === "Enter" && event.altKey) {
        if (visible("skip")) press("skip");
        event.preventDefault();
    } else if (event.key === "Escape" && visible("interrupt")) {
        press("interrupt");
    }
});

// gradio may draw the page before or after this script runs.
function whenDrawn(observer) {
    if (!document.getElementById("text2video_opened")) return;
    observer.disconnect();
    text2videoLoaded.forEach((callback) => callback());
}
setTimeout(() => {
    const observer = new MutationObserver(() => whenDrawn(observer));
    observer.observe(document, {childList: true, subtree: true});
    whenDrawn(observer);
});
