% Golden values for tests/test_resize.py: octave --eval "run tests/golden/octave_imresize.m" > tests/golden/imresize.json
% GNU Octave's image package (2.14) computes MATLAB's imresize: its own tests compare it with results from MATLAB
% (largest difference 4e-13 in floating point). Input: integers 0..999 of a linear congruential sequence.
pkg load image
s = 7;
cases = {};
for shape = {[12 24], [7 9]}
  n = prod (shape{1}); v = zeros (1, n);
  for i = 1:n, s = mod (s * 16807, 2147483647); v(i) = mod (s, 1000); end
  x = reshape (v, fliplr (shape{1}))';
  for k = {1/2, 1/3, 1/4, 2, 3, 4}
    if all (mod (size (x) * k{1}, 1) < 1e-9)
      y = imresize (x, k{1}, "bicubic", "Antialiasing", true);
      cases{end+1} = struct ("scale", k{1}, "input", x, "output", y);
    end
  end
end
printf ("%s\n", jsonencode (cases));
