// The tab's page side. The WebUI brings gradioApp, onUiLoaded, randomId, requestProgress and showSubmitButtons; the
// standalone page brings the same functions.

(function() {
    const PREFIX = "text2video_";
    const TASK = PREFIX + "task_id";
    const DRAWING = 200; // milliseconds between looks
    const TOOLTIPS = {
        paste: "Read the settings from the text in the prompt box",
        clear_prompt: "Clear both prompts",
        refresh: "Look for models again",
        swap: "Swap width and height",
        random_seed: "A new seed for each run (-1)",
        reuse_seed: "Reuse the seed of the last video",
        interrupt: "End the run; finished videos are kept",
        skip: "Go on with the next video",
        open_folder: "Open the folder of the last video",
    };

    const element = (name) => gradioApp().getElementById
        ? gradioApp().getElementById(PREFIX + name)
        : gradioApp().querySelector("#" + PREFIX + name);

    function watch(id) {
        showSubmitButtons("text2video", false);
        sessionStorage.setItem(TASK, id);
        requestProgress(id, element("preview"), element("preview"), () => {
            showSubmitButtons("text2video", true);
            sessionStorage.removeItem(TASK);
        });
    }

    // Called with the values of the inputs; the first becomes the task's id.
    window.text2videoSubmit = function(values) {
        const id = randomId();
        watch(id);
        return [id, ...values.slice(1)];
    };

    window.text2videoInterrupting = function() {
        for (const [name, shown] of [["interrupt", "none"], ["skip", "block"], ["interrupting", "block"]]) {
            element(name).style.display = shown;
        }
        return [];
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

    function pageOpened() {
        for (const [name, text] of Object.entries(TOOLTIPS)) {
            element(name)?.setAttribute("title", text);
        }
        element("opened").click();
        // A reloaded page goes on showing how its run gets on.
        const running = sessionStorage.getItem(TASK);
        if (running) watch(running);
    }

    // The host's page may be there before this tab is drawn; where the tab could not be built, it never comes.
    function whenDrawn(tries) {
        if (element("opened")) {
            pageOpened();
        } else if (tries) {
            setTimeout(whenDrawn, DRAWING, tries - 1);
        }
    }
    onUiLoaded(() => whenDrawn(300));
})();
