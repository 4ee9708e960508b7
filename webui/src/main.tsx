import { render } from "preact";
import { ApiClient } from "./api/client.ts";
import { App } from "./ui/app.tsx";

render(<App api={new ApiClient(location.href)} />, document.getElementById("app")!);
