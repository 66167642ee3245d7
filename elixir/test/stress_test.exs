defmodule DGM.StressTest do
  # Three seconds of what `make stress` does for a minute. Bits, kills and memory are checked;
  # lateness is not, for a test must not fail because its machine is busy.
  use ExUnit.Case, async: false
  import ExUnit.CaptureIO

  @script Path.expand("../stress/stress.exs", __DIR__)

  test "processes that attend, sample and die leave bits and memory as they were" do
    variables = %{"STRESS_SECONDS" => "3", "STRESS_MAX_LATE_MS" => "60000"}
    System.put_env(variables)
    on_exit(fn -> Enum.each(Map.keys(variables), &System.delete_env/1) end)
    assert capture_io(fn -> Code.eval_file(@script) end) =~ ~r/elixir stress: calls=\d+ kills=\d+/
  end
end
