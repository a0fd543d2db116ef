// The tab's page side. The WebUI brings gradioApp, onUiLoaded, randomId, requestProgress and showSubmitButtons; the
// standalone page brings the same functions.

(function() {
    const PREFIX = "text2video_";
    const TASKS = PREFIX + "tasks";
    const PATIENCE = 1000; // milliseconds between tries
    const ANSWER = 10000; // milliseconds that an answer may take
    const TOOLTIPS = {
        paste: "Read the settings from the text in the prompt box",
        clear_prompt: "Clear both prompts",
        refresh: "Look for models again",
        refresh_loras: "Look for LoRA files again",
        swap: "Swap width and height",
        random_seed: "A new seed for each run (-1)",
        reuse_seed: "Reuse the seed of the last video",
        interrupt: "End the run; finished videos are kept",
        skip: "Skip this video and continue with the next one",
        open_folder: "Open the folder of the last video",
    };

    const element = (name) => gradioApp().getElementById
        ? gradioApp().getElementById(PREFIX + name)
        : gradioApp().querySelector("#" + PREFIX + name);

    // Interrupt and Skip lie above Generate, but a keyboard would still reach it.
    function showRunning(running) {
        showSubmitButtons("text2video", !running);
        element("generate").disabled = running;
    }

    // The page's runs, first to last: a second Generate waits for the first one's, or may overtake it.
    const tasks = () => (sessionStorage.getItem(TASKS) ?? "").split(" ").filter(Boolean);
    const setTasks = (ids) => sessionStorage.setItem(TASKS, ids.join(" "));

    function watch(id, atEnd) {
        showRunning(true);
        setTasks([...new Set([...tasks(), id])]);
        requestProgress(id, element("preview"), element("preview"), () => {
            setTasks(tasks().filter((other) => other !== id));
            showRunning(tasks().length > 0);
            atEnd();
        });
    }

    // Called with the values of the inputs; the first becomes the task's id.
    window.text2videoSubmit = function(values) {
        const id = randomId();
        watch(id, () => {});
        return [id, ...values.slice(1)];
    };

    // Of the questions with one name only the latest is answered.
    window.text2videoPage = randomId();

    // What the server is told whom an Interrupt or a Skip concerns.
    window.text2videoTasks = () => [tasks().join(" ")];
    window.text2videoInterrupting = function() {
        element("interrupting").style.display = "block";
        return window.text2videoTasks();
    };

    function showTab() {
        const button = Array.from(gradioApp().querySelectorAll("#tabs > .tab-nav button, #tabs > .tab-container button"))
            .find((tab) => tab.getAttribute("aria-controls") === "tab_text2video" || tab.textContent.trim() === "text2video");
        button?.click();
    }

    // The WebUI calls these by name when settings are sent to this tab.
    window.switch_to_text2video = function() {
        showTab();
        return Array.from(arguments);
    };
    window.recalculate_prompts_text2video = function() {
        return Array.from(arguments);
    };

    // The server brings the models up to date whenever a page is opened, and marks the note then. A host may draw
    // this tab late and connect its buttons later still, so the button is pressed until it asks the server, and once in
    // a while after that: gradio 4.40 can lose an answer.
    let asked = 0;
    window.text2videoOpened = function() {
        asked = Date.now();
        return window.text2videoPage;
    };
    function askUntilFresh(tries) {
        if (!tries || element("note")?.querySelector("[data-fresh]")) return;
        if (Date.now() - asked > ANSWER) element("opened")?.click();
        setTimeout(askUntilFresh, PATIENCE, tries - 1);
    }

    // A file dropped anywhere on the tab is one to restore settings from, except on boxes for other files.
    function acceptDrops() {
        const tab = gradioApp().querySelector("#tab_text2video") ?? document.body;
        for (const type of ["dragover", "drop"]) {
            tab.addEventListener(type, (event) => {
                if (!event.dataTransfer?.types.includes("Files")) return;
                if (event.target.closest?.(`#${PREFIX}soundtrack, #${PREFIX}source_fold, #${PREFIX}restore`)) return;
                event.preventDefault();
                event.stopPropagation();
                if (type === "drop") restore(event.dataTransfer.files);
            }, true);
        }
    }

    function restore(files) {
        const input = element("restore")?.querySelector("input[type=file]");
        if (!input || !files.length) return;
        input.files = files;
        input.dispatchEvent(new Event("change", {bubbles: true}));
    }

    function pageOpened() {
        acceptDrops();
        for (const [name, text] of Object.entries(TOOLTIPS)) {
            // The WebUI translates titles only where they come with a new element.
            element(name)?.setAttribute("title", window.localization?.[text] ?? text);
        }
        askUntilFresh(60);
        // A reloaded page goes on showing how its runs get on, and asks for what came of them.
        for (const id of tasks()) {
            watch(id, () => {
                window.text2videoReloaded = id;
                element("collect").click();
            });
        }
    }

    function whenDrawn(tries) {
        if (element("opened")) {
            pageOpened();
        } else if (tries) {
            setTimeout(whenDrawn, PATIENCE, tries - 1);
        }
    }
    onUiLoaded(() => whenDrawn(60));
})();
